/** Whom an error in the middle of a batch is blamed on: only what an event causes every time makes it a dead letter. */

import { describe, expect, test } from 'vitest';
import { BelfryError } from '../../src/errors.js';
import { blame, isPassing } from '../../src/relay/failures.js';

const withCode = (code: string, message = 'said'): Error => Object.assign(new Error(message), { code });

describe('is to blame', () => {
  test.each([
    // The value, each time it is tried.
    ['22P02', 'event'],
    ['22012', 'event'],
    ['23505', 'event'],
    ['P0001', 'event'],
    ['54000', 'event'],
    // The server, or the way to it.
    ['08006', 'connection'],
    ['25006', 'connection'],
    ['26000', 'connection'],
    ['53100', 'connection'],
    ['57014', 'connection'],
    ['57P01', 'connection'],
    ['58030', 'connection'],
    ['XX000', 'connection'],
    // Others, just then.
    ['40P01', 'contention'],
    ['40001', 'contention'],
    ['55P03', 'contention'],
    // The config and the tables, which don't go together.
    ['42703', 'schema'],
    ['42P01', 'schema'],
    ['42501', 'schema'],
    ['3F000', 'schema'],
    ['0A000', 'schema'],
  ])('%s: %s', (code, whose) => {
    expect(blame(withCode(code))).toBe(whose);
    expect(isPassing(withCode(code))).toBe(whose !== 'event');
  });

  test.each(['ECONNRESET', 'EPIPE', 'ETIMEDOUT'])('a socket that says %s: connection', (code) => {
    // As Node makes them; EPIPE looks like a SQLSTATE.
    const error = Object.assign(withCode(code, `write ${code}`), { errno: -32, syscall: 'write' });
    expect(blame(error)).toBe('connection');
  });

  test.each([
    'Connection terminated unexpectedly',
    'Client has encountered a connection error and is not queryable',
    'Query read timeout',
    'Prepared statements must be unique - x was used for a different statement',
  ])('pg that says "%s": connection', (message) => {
    expect(blame(new Error(message))).toBe('connection');
  });

  test('a term that is over, a database that is away: neither', () => {
    expect(blame(new BelfryError('lease_lost', 'over'))).toBe('lease');
    expect(blame(new BelfryError('database_unreachable', 'away'))).toBe('connection');
  });

  test('what our own code threw: the event that it was about', () => {
    expect(blame(new TypeError('x is not a function'))).toBe('event');
  });
});
