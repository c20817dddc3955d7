/**
 * The demo's clock as seen from this page. Two clocks are compared by what must be true: a request can't arrive before it is
 * sent, an answer or a push not before it leaves. Each such pair narrows the bounds between which the difference lies.
 */

/** Clocks drift apart: after this long the bounds are taken anew. */
const keepMs = 60_000;
const roundTrips = 9;

export class Clock {
  #low = -Infinity;
  #high = Infinity;
  #since = 0;

  /** By how much the demo's clock is ahead of the page's, in ms. */
  get aheadMs() {
    if (this.#low === -Infinity && this.#high === Infinity) return 0;
    if (this.#low === -Infinity) return this.#high;
    if (this.#high === Infinity) return this.#low;
    return (this.#low + this.#high) / 2;
  }

  /** Takes round trips; rejects if the demo does not answer. */
  async compare(backend) {
    for (let trip = 0; trip < roundTrips; trip += 1) {
      const sent = now();
      const { now: there } = await backend.clock();
      this.sentAndReceived(sent, there);
      this.leftAndArrived(there, now());
    }
  }

  /** From the page to the demo. */
  sentAndReceived(here, there) {
    this.#renew();
    this.#high = Math.min(this.#high, there - here);
    // Contradictions are drift: the newest is right.
    if (this.#low > this.#high) this.#low = this.#high;
  }

  /** From the demo to the page. */
  leftAndArrived(there, here) {
    this.#renew();
    this.#low = Math.max(this.#low, there - here);
    if (this.#high < this.#low) this.#high = this.#low;
  }

  #renew() {
    if (now() - this.#since < keepMs) return;
    this.#since = now();
    this.#low = -Infinity;
    this.#high = Infinity;
  }
}

/** This page's clock, in ms; finer than Date.now. */
export function now() {
  return performance.timeOrigin + performance.now();
}
