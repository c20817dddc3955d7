/** Numbers in what is said to people. */

/** `1 event`, `2 events`. */
export function counted(count: number, noun: string): string {
  return `${String(count)} ${noun}${count === 1 ? '' : 's'}`;
}
