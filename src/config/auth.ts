/** The auth section: one key, and only algorithms that fit it, so that no token can choose how it is checked. */

import { createPublicKey } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { messageOf } from '../errors.js';
import type { Problems } from './problems.js';
import type { RawAuth } from './schema.js';
import type { Sound } from './shape.js';
import type { Algorithm, AuthConfig, AuthKey } from './types.js';

/** RFC 7518, 3.2: a key for HS256 has at least as many bits as its hash. */
const SECRET_BYTES = 32;

const RSA: readonly Algorithm[] = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'];
const CURVES: Readonly<Record<string, Algorithm>> = { prime256v1: 'ES256', secp384r1: 'ES384', secp521r1: 'ES512' };

/** The key, with what fits it; undefined when it can't be told. */
export function checkAuth(
  raw: Sound<RawAuth>,
  fileName: (name: string) => string,
  problems: Problems,
): FittingKey | undefined {
  const isGiven = (name: keyof RawAuth): boolean => raw[name] !== undefined || problems.tells(['auth', name]);
  const given = (['secret', 'publicKey', 'jwksUri'] as const).filter(isGiven);
  if (given.length !== 1) {
    const found = given.length === 0 ? 'none is there' : `${given.join(' and ')} are`;
    problems.add(['auth'], `needs exactly one of secret, publicKey, jwksUri; ${found}`);
    return undefined;
  }
  const resolved = resolveKey(raw, fileName, problems);
  if (resolved === undefined) return undefined;
  const { fitting } = resolved;
  raw.algorithms?.forEach((algorithm, index) => {
    if (algorithm !== undefined && !fitting.includes(algorithm)) {
      problems.add(['auth', 'algorithms', index], `${algorithm} does not fit the key; possible: ${fitting.join(', ')}`);
    }
  });
  return resolved;
}

export function resolveAuth(raw: RawAuth, { key, standard }: FittingKey, warnings: string[]): AuthConfig {
  if (key.kind === 'secret' && Buffer.byteLength(key.secret) < SECRET_BYTES) {
    warnings.push(
      `auth.secret is shorter than ${SECRET_BYTES} bytes and can be guessed; make one with: openssl rand -hex 32`,
    );
  }
  for (const name of ['issuer', 'audience'] as const) {
    if (raw[name] === undefined)
      warnings.push(`auth.${name} is not set: tokens with any ${name} are taken. Set it, or write ${name}: null.`);
  }
  return {
    key,
    algorithms: raw.algorithms ?? standard,
    issuer: raw.issuer ?? null,
    audience: typeof raw.audience === 'string' ? [raw.audience] : (raw.audience ?? null),
    userClaim: raw.userClaim,
    queryToken: raw.queryToken,
    adminClaim: raw.adminClaim ?? null,
  };
}

export interface FittingKey {
  readonly key: AuthKey;
  readonly fitting: readonly Algorithm[];
  /** What is allowed when the config does not say. */
  readonly standard: readonly Algorithm[];
}

function resolveKey(
  raw: Sound<RawAuth>,
  fileName: (name: string) => string,
  problems: Problems,
): FittingKey | undefined {
  if (raw.secret !== undefined) {
    return { key: { kind: 'secret', secret: raw.secret }, fitting: ['HS256', 'HS384', 'HS512'], standard: ['HS256'] };
  }
  if (raw.jwksUri !== undefined) {
    const fitting = [...RSA, ...Object.values(CURVES)];
    return { key: { kind: 'jwks', uri: raw.jwksUri }, fitting, standard: ['RS256', 'ES256'] };
  }
  return raw.publicKey === undefined ? undefined : readPublicKey(fileName(raw.publicKey), problems);
}

function readPublicKey(file: string, problems: Problems): FittingKey | undefined {
  const path = ['auth', 'publicKey'];
  let pem: string;
  let parsed: KeyObject;
  try {
    pem = readFileSync(file, 'utf8');
  } catch (error) {
    problems.add(path, `can't be read: ${messageOf(error)}`);
    return undefined;
  }
  try {
    parsed = createPublicKey(pem);
  } catch {
    problems.add(path, `${file} is not a PEM file with a public key`);
    return undefined;
  }
  if (/PRIVATE KEY/.test(pem)) {
    problems.add(path, `${file} holds a private key; give the public one`);
    return undefined;
  }
  const key: AuthKey = { kind: 'publicKey', file, pem };
  if (parsed.asymmetricKeyType === 'rsa') return { key, fitting: RSA, standard: ['RS256'] };
  const curve = CURVES[parsed.asymmetricKeyDetails?.namedCurve ?? ''];
  if (parsed.asymmetricKeyType === 'ec' && curve !== undefined) return { key, fitting: [curve], standard: [curve] };
  problems.add(
    path,
    `is of a kind that is not supported (${parsed.asymmetricKeyType ?? 'unknown'}); use RSA or an EC key on P-256, P-384 or P-521`,
  );
  return undefined;
}
