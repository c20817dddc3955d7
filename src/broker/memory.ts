/**
 * The broker of a single process: relay and gateway share it, and a publication is handed over before `publish` returns.
 *
 * What must hold: nothing is queued, so nothing can be lost, reordered or pile up; with no gateway listening a publication
 * goes nowhere, as there is nobody to tell.
 */

import type { Broker, BrokerHandler, Publication } from './broker.js';

export class MemoryBroker implements Broker {
  readonly kind = 'memory';
  #handler: BrokerHandler | null = null;

  start(): Promise<void> {
    return Promise.resolve();
  }

  stop(): Promise<void> {
    this.#handler = null;
    return Promise.resolve();
  }

  /** Replaces the handler before it, if there was one. */
  subscribe(handler: BrokerHandler): void {
    this.#handler = handler;
  }

  publish(publications: readonly Publication[]): void {
    if (publications.length > 0) this.#handler?.receive(publications);
  }

  mayHaveSessions(userId: string): boolean {
    return this.#handler?.hasSessions(userId) ?? false;
  }

  mayHaveSubscribers(channel: string): boolean {
    return this.#handler?.hasSubscribers(channel) ?? false;
  }
}
