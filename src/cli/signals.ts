/** Running something until SIGTERM or Ctrl-C, with a bound on how long stopping may take. */

/** Longest time for stopping; orchestrators kill after 30 s. */
export const STOP_MS = 28_000;

/**
 * Starts, waits for a signal, stops. A signal during the start counts too. A second one, or STOP_MS, ends the process with code 1 at
 * once. Throws what `start` and `stop` throw.
 */
export async function untilStopped(
  start: () => Promise<{ stop(): Promise<void> }>,
  onSignal: (signal: NodeJS.Signals) => void,
): Promise<void> {
  let told: (() => void) | null = null;
  let count = 0;
  const signalled = new Promise<void>((resolve) => (told = resolve));
  const receive = (signal: NodeJS.Signals): void => {
    count += 1;
    if (count > 1) process.exit(1);
    setTimeout(() => process.exit(1), STOP_MS).unref();
    onSignal(signal);
    told?.();
  };
  process.on('SIGINT', receive).on('SIGTERM', receive);
  // What runs may hold no handle of its own while it waits.
  const alive = setInterval(() => undefined, 60_000);
  try {
    const running = await start();
    await signalled;
    await running.stop();
  } finally {
    clearInterval(alive);
    process.off('SIGINT', receive).off('SIGTERM', receive);
  }
}
