/**
 * Texts for `golden.json` of a task: made ones that cover what rendering does (other scripts, width forms, emoji,
 * over-long fields, markers), so that a difference between machines cannot hide. None is a user's: a bundle cannot be
 * changed, so a text in it would outlive being forgotten.
 */
import { templateFields, templatesOf } from '../task/template.js';
import type { Item, TaskDefinition } from '../task/types.js';

const PLAIN = '这家店的服务很好，下次还会再来。';
const SHORT = '好';
const UNHAPPY = '太差了！客服不理人，东西用了两天就坏，只好退货……';
const SPAN = '客服';
const LINES = '第一行\n  第二行\t（完）\u3000“引号”';
const MIXED = 'iPhone 13手机😀，價格￥5,999.00！Ｆｕｌｌ　ｗｉｄｔｈ①，café naïve';

export function goldenItems(definition: TaskDefinition): Item[] {
  const choices = definition.kind === 'multiple-choice' ? ['好', '大'] : undefined;
  const overLong = (PLAIN + MIXED).repeat(Math.ceil(definition.maxLength / 16));
  const items = [PLAIN, SHORT, UNHAPPY, LINES, MIXED, overLong].map((text) => madeItem(definition, text, choices));
  // One that is cut around what its further fields hold.
  return items[0]!.fields ? [...items, madeItem(definition, overLong + UNHAPPY, choices, SPAN)] : items;
}

/** An item of which every field that a template names is `text`, or, but for the text and its pair, `further`. */
export function madeItem(
  definition: TaskDefinition,
  text: string,
  choices: string[] | undefined,
  further = text,
): Item {
  const item: Item = { text };
  if (choices) item.choices = choices;
  if (definition.kind === 'sentence-pair') item.textPair = text;
  for (const { name, blank } of templatesOf(definition).flatMap(templateFields)) {
    const own = name === 'text' || name === 'textPair';
    const given = fieldOf(item, name) ?? (own ? text : further);
    const value = blank === null ? given : withMarker(given, blank);
    if (own) item[name] = value;
    else item.fields = { ...item.fields, [name]: value };
  }
  return item;
}

function fieldOf(item: Item, name: string): string | undefined {
  return name === 'text' || name === 'textPair' ? item[name] : (item.fields?.[name] as string | undefined);
}

/** The marker stands in the middle, so that both of its sides are cut. */
function withMarker(text: string, marker: string): string {
  if (text.includes(marker)) return text;
  const characters = Array.from(text);
  const middle = Math.floor(characters.length / 2);
  return characters.slice(0, middle).join('') + marker + characters.slice(middle).join('');
}
