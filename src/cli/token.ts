/** `belfry token`: signs a token with the configured secret, for trying things out. */

import { InvalidArgumentError, Option } from 'commander';
import type { Command } from 'commander';
import jwt from 'jsonwebtoken';
import { loadConfig } from '../config.js';
import type { AuthConfig } from '../config.js';
import { BelfryError } from '../errors.js';
import { addCommand, duration, nonEmpty, print } from './common.js';
import type { CommonOptions } from './common.js';

interface TokenOptions extends CommonOptions {
  readonly sub: string;
  readonly ttl: number;
  readonly claim: Readonly<Record<string, unknown>>;
}

export function registerToken(program: Command): void {
  addCommand(program, 'token', 'sign a token with the configured secret and print it')
    .requiredOption('--sub <id>', 'the user it is for', nonEmpty)
    .addOption(new Option('--ttl <duration>', 'how long it is valid').argParser(lifetime).default(3_600_000, '1h'))
    .addOption(
      new Option('--claim <k=v>', 'a further claim; may be repeated. true, false and numbers are taken as such')
        .argParser(addClaim)
        .default({}, 'none'),
    )
    .action(async (options: TokenOptions) => {
      const { auth } = await loadConfig(options.config);
      print(signToken(auth, options.sub, options.ttl, options.claim, Date.now()));
    });
}

/** Throws BelfryError `unavailable` where there is no secret to sign with, and `config_invalid` for a claim that an option sets. */
function signToken(
  auth: AuthConfig,
  userId: string,
  ttlMs: number,
  claims: Readonly<Record<string, unknown>>,
  nowMs: number,
): string {
  if (auth.key.kind !== 'secret') {
    const key = auth.key.kind === 'jwks' ? 'auth.jwksUri' : 'auth.publicKey';
    throw new BelfryError('unavailable', `${key} can only check tokens: get one from whoever holds the private key.`);
  }
  const setBy = { [auth.userClaim]: '--sub', exp: '--ttl' };
  for (const [claim, option] of Object.entries(setBy)) {
    if (Object.hasOwn(claims, claim))
      throw new BelfryError('config_invalid', `--claim ${claim}: that claim is set by ${option}.`);
  }
  const iat = Math.floor(nowMs / 1000);
  const payload = {
    ...(auth.issuer === null ? {} : { iss: auth.issuer }),
    ...(auth.audience === null ? {} : { aud: auth.audience[0] }),
    iat,
    exp: iat + Math.floor(ttlMs / 1000),
    [auth.userClaim]: userId,
    ...claims,
  };
  return jwt.sign(payload, auth.key.secret, { algorithm: auth.algorithms[0] ?? 'HS256' });
}

/** Whole seconds are all that a token knows. */
function lifetime(text: string): number {
  const ms = duration(text);
  if (ms < 1_000)
    throw new InvalidArgumentError('It must be at least 1s: a shorter one has expired when it is printed.');
  return ms;
}

function addClaim(text: string, before: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const equals = text.indexOf('=');
  if (equals < 1) throw new InvalidArgumentError('It must look like name=value.');
  const value = text.slice(equals + 1);
  const isLiteral = /^(?:true|false|-?(?:0|[1-9]\d{0,14})(?:\.\d{1,9})?)$/.test(value);
  return { ...before, [text.slice(0, equals)]: isLiteral ? (JSON.parse(value) as unknown) : value };
}
