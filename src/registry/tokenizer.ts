/** The trainer's own tokenizer library (native `tokenizers`), read from the bundle's tokenizer.json. */
import { createHash } from 'node:crypto';
import { Tokenizer } from 'tokenizers';
import type { TextTokenizer } from '../inference/types.js';

/**
 * By their content, while anyone uses them: versions and tasks on one base model share one. It is native memory that the
 * collector does not see, so that a copy a swap would pile up.
 */
const open = new Map<string, WeakRef<TextTokenizer>>();

/** Throws what the library throws where the JSON is no tokenizer. */
export function openTokenizer(tokenizerJson: string): TextTokenizer {
  const key = createHash('sha256').update(tokenizerJson).digest('hex');
  const known = open.get(key)?.deref();
  if (known) return known;
  for (const [other, tokenizer] of open) if (!tokenizer.deref()) open.delete(other);
  const tokenizer = load(tokenizerJson);
  open.set(key, new WeakRef(tokenizer));
  return tokenizer;
}

function load(tokenizerJson: string): TextTokenizer {
  const tokenizer = Tokenizer.fromString(tokenizerJson);
  // Rendering cuts and batching pads; a file that was saved with either would do it twice.
  tokenizer.disableTruncation();
  tokenizer.disablePadding();
  return {
    async encode(texts) {
      if (texts.length === 0) return [];
      const encodings = await tokenizer.encodeBatch(texts, { addSpecialTokens: false });
      return encodings.map((encoding) => encoding.getIds());
    },
    tokenToId: (token) => tokenizer.tokenToId(token) ?? undefined,
  };
}
