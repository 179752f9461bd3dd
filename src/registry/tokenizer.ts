/** The trainer's own tokenizer library (native `tokenizers`), read from the bundle's tokenizer.json. */
import { Tokenizer } from 'tokenizers';
import type { TextTokenizer } from '../inference/types.js';

/** Throws what the library throws where the JSON is no tokenizer. */
export function openTokenizer(tokenizerJson: string): TextTokenizer {
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
