/**
 * Shapes of batches. A GPU's provider prepares anew for each shape that it has not had, which takes longer than the batch:
 * there batches are padded to a few shapes, which are warmed when a model is opened. A CPU takes each as it is.
 */
export interface Shape {
  rows: number;
  /** Tokens of a row. */
  length: number;
}

export type ShapeOf = (rows: number, length: number) => Shape;

export const MAX_ROWS = 512;

const LENGTHS = [16, 32, 64, 96, 128, 192, 256, 384, 512];
const LONGER_STEP = 128;

export const exactShape: ShapeOf = (rows, length) => ({ rows, length });

/** The smallest of the fixed shapes that holds it: rows are a power of two. */
export const fixedShape: ShapeOf = (rows, length) => ({
  rows: 2 ** Math.ceil(Math.log2(rows)),
  length: LENGTHS.find((fixed) => fixed >= length) ?? Math.ceil(length / LONGER_STEP) * LONGER_STEP,
});

export function tokensIn({ rows, length }: Shape): number {
  return rows * length;
}

/** Every fixed shape that a batch of at most so many tokens, of rows of at most `maxLength`, can come to. */
export function fixedShapes(maxBatchTokens: number, maxLength: number): Shape[] {
  const longest = fixedShape(1, maxLength).length;
  const lengths = new Set([...LENGTHS, longest].filter((length) => length <= longest));
  for (let length = LENGTHS.at(-1)! + LONGER_STEP; length < longest; length += LONGER_STEP) lengths.add(length);
  return [...lengths].flatMap((length) => {
    // A row that is over the budget goes alone.
    const shapes = [{ rows: 1, length }];
    for (let rows = 2; rows <= MAX_ROWS && rows * length <= maxBatchTokens; rows *= 2) shapes.push({ rows, length });
    return shapes;
  });
}
