/**
 * What the page may ask of the demo itself, under `/watch/`: the stream of events, a token for one of the three, the clock,
 * the simulator, and a stop of Belfry for a while. Tokens are handed to whoever asks: there is no login in a demo.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import jwt from 'jsonwebtoken';
import { nowMs } from '../clock.js';
import { allowOrigin, Refusal, sendJson, sendRefusal } from './http.js';
import type { Person } from './people.js';
import { maxRate, type Simulator } from './simulator.js';
import type { Watch } from './watch.js';

export interface ControlOptions {
  readonly watch: Watch;
  readonly simulator: Simulator;
  readonly cast: readonly Person[];
  readonly secret: string;
  readonly origins: readonly string[];
  /** Stops Belfry and starts it again after so long; refuses while it is away. */
  readonly leave: (ms: number) => void;
}

const tokenTtl = '1h';
const maxAwaySeconds = 60;

/** Answers every request under `/watch/`. Never throws. */
export function createControl(options: ControlOptions): (request: IncomingMessage, response: ServerResponse) => void {
  const { watch, simulator } = options;
  return (request, response) => {
    if (!allowOrigin(request, response, options.origins)) return;
    try {
      const url = new URL(request.url ?? '/', 'http://localhost');
      switch (`${request.method} ${url.pathname}`) {
        case 'GET /watch/events':
          watch.serve(request, response);
          return;
        case 'GET /watch/clock':
          sendJson(response, 200, { now: nowMs() });
          return;
        case 'GET /watch/token': {
          const person = options.cast.find(({ id }) => id === url.searchParams.get('person'));
          if (person === undefined) throw new Refusal(404, 'person: one of the three.');
          const token = jwt.sign({ sub: person.id }, options.secret, { algorithm: 'HS256', expiresIn: tokenTtl });
          sendJson(response, 200, { token });
          return;
        }
        case 'POST /watch/simulator':
          simulator.setRate(wholeNumber(url, 'rate', maxRate));
          watch.changed();
          sendJson(response, 200, simulator.state);
          return;
        case 'POST /watch/away':
          options.leave(wholeNumber(url, 'seconds', maxAwaySeconds) * 1000);
          sendJson(response, 202, {});
          return;
        default:
          throw new Refusal(404, 'There is no such page.');
      }
    } catch (error) {
      sendRefusal(response, error);
    }
  };
}

function wholeNumber(url: URL, name: string, most: number): number {
  const text = url.searchParams.get(name) ?? '';
  const value = Number(text);
  if (!/^\d{1,9}$/.test(text) || value > most) throw new Refusal(400, `${name}: a whole number from 0 to ${most}.`);
  return value;
}
