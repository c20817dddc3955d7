/** JSON whose numbers JavaScript could not hold. */

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parseJson } from '../../src/postgres/json.js';

test('numbers beyond 2^53 are texts, wherever they stand; all others, and what texts say, are as they were', () => {
  const text =
    '{"a": 9007199254740993, "b": [-9007199254740993, 9007199254740991, {"c": 100000000000000000000}], "n12345678901234567": 1,' +
    ' "d": "12345678901234567, \\" 98765432109876543", "e": 0.1234567890123456, "f": 12345678901234567.25, "g": "\\\\", "h": 9007199254740993}';
  expect(parseJson(text)).toEqual({
    a: '9007199254740993',
    b: ['-9007199254740993', 9007199254740991, { c: '100000000000000000000' }],
    n12345678901234567: 1,
    d: '12345678901234567, " 98765432109876543',
    e: 0.1234567890123456,
    f: '12345678901234567.25',
    g: '\\',
    h: '9007199254740993',
  });
});

test('what is no such number is what JSON.parse gives', () => {
  // Postgres writes no exponents.
  const safe = fc.jsonValue().filter((value) => !/\d{16}|e\+/.test(JSON.stringify(value)));
  fc.assert(
    fc.property(safe, (value) => {
      const text = JSON.stringify([value, '1'.repeat(20)]);
      expect(parseJson(text)).toEqual(JSON.parse(text));
    }),
  );
});

test('a text of megabytes', () => {
  const long = '1234567890123456"\\'.repeat(200_000);
  expect(parseJson(JSON.stringify({ long, n: 1 }))).toEqual({ long, n: 1 });
});
