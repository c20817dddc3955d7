/** Work that waits a while so that more can join it: once per interval at most, and never two at a time. */

export class Later {
  private timer: NodeJS.Timeout | null = null;
  private running: Promise<void> = Promise.resolve();

  /** `work` never throws. */
  constructor(
    private readonly everyMs: number,
    private readonly work: () => Promise<void>,
  ) {}

  /** There is something to do: begins after the interval, unless that was said already. */
  plan(): void {
    this.timer ??= setTimeout(() => {
      this.timer = null;
      this.running = this.running.then(this.work);
    }, this.everyMs);
  }

  /** Resolves when what runs is through; what was planned is left to the caller. */
  async stop(): Promise<void> {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
    await this.running;
  }
}
