/** What texts ask of a model, by their length: before tokenizing, so that what is too much costs nothing. */
import type { Item, ServingPolicy, TaskDefinition } from '../task/types.js';
import { type Answering, membersOf, policyOf } from './policy.js';
import type { Member } from './types.js';

/** About what a template adds to a text. */
const TEMPLATE_TOKENS = 8;

type CostedMember = Pick<Member, 'role' | 'hypotheses'> & { shortlist?: { size: number } };

/** Rows × members × tokens. A Chinese character is about a token. Throws BAD_INPUT on `policy`. */
export function tokensOf(model: Answering<CostedMember>, items: Item[], policy?: ServingPolicy): number {
  const asked = policyOf(model, policy);
  const members = asked === 'cascade' ? model.members : membersOf(model, asked);
  return items.reduce((sum, item) => sum + tokensOfItem(item, members, model.definition), 0);
}

function tokensOfItem(item: Item, members: CostedMember[], { labels, maxLength }: TaskDefinition): number {
  const { text, textPair = '', choices = [] } = item;
  const choice = choices.reduce((longest, one) => Math.max(longest, one.length), 0);
  const tokens = Math.min(maxLength, text.length + textPair.length + choice + TEMPLATE_TOKENS);
  const rows = ({ hypotheses, shortlist }: CostedMember) =>
    hypotheses ? 1 + Math.min(labels.length, shortlist?.size ?? labels.length) : Math.max(1, choices.length);
  return members.reduce((sum, member) => sum + rows(member) * tokens, 0);
}
