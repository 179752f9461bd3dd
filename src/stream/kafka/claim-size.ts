/**
 * How many records a claim may have. A transaction costs 30 to 85 ms whatever is in it: where claims are scored in no
 * time they grow. Where they are scored slowly they are small, so that little is at work when a worker ends or a
 * partition goes. Pure.
 */
const LEAST = 512;
const MOST = 4_096;
const QUICK_MS = 250;
const SLOW_MS = 1_000;

export class ClaimSize {
  records = LEAST;

  /** To be told of each claim. */
  scored(records: number, tookMs: number): void {
    if (tookMs > SLOW_MS) this.records = Math.max(LEAST, this.records / 2);
    // One that is not full says nothing of a full one.
    else if (tookMs < QUICK_MS && records >= this.records) this.records = Math.min(MOST, this.records * 2);
  }
}
