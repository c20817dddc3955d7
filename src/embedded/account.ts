/**
 * As whom the embedded Postgres runs, and where its data can be.
 *
 * Postgres refuses to run as root. A root process therefore starts it as `nobody`, who must be able to walk down to the data:
 * a checkout below /root (mode 700) can't be reached, and then the data moves to a folder of its own under the temporary
 * directory, which is said.
 */
import { createHash } from 'node:crypto';
import { chmod, lstat, mkdir, readFile, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { BelfryError } from '../errors.js';

/** As `child_process.spawn` takes it; empty when the server runs as the same user as this process. */
export type Account = { readonly uid: number; readonly gid: number } | { readonly uid?: never; readonly gid?: never };

/** uid of `nobody` where /etc/passwd does not say (65534 on Linux). */
const nobodyId = 65_534;

export async function chooseAccount(): Promise<Account> {
  if (process.getuid?.() !== 0) return {};
  const passwd = await readFile('/etc/passwd', 'utf8').catch(() => '');
  const [, , uid, gid] = /^nobody:.*$/m.exec(passwd)?.[0].split(':') ?? [];
  return { uid: toId(uid), gid: toId(gid) };
}

function toId(text: string | undefined): number {
  const id = Number(text);
  return Number.isInteger(id) && id > 0 ? id : nobodyId;
}

/** Makes the directory, or another one when the account can't reach it; returns which. */
export async function chooseDirectory(
  wanted: string,
  account: Account,
  log: { warn(message: string): void },
): Promise<string> {
  try {
    await mkdir(wanted, { recursive: true, mode: 0o755 });
  } catch (cause) {
    throw new BelfryError('unavailable', `${wanted} can't be made: choose another folder for the data.`, { cause });
  }
  if (await canReach(wanted, account)) return wanted;
  // Named after this very folder, not only its path: a new checkout in the same place begins afresh.
  const { ino, birthtimeMs } = await stat(wanted);
  const identity = `${wanted} ${ino} ${birthtimeMs}`;
  const other = await sharedFolder(createHash('sha256').update(identity).digest('hex').slice(0, 12));
  log.warn(`Postgres runs as an unprivileged user, who can't reach ${wanted}: the data is in ${other}.`);
  return other;
}

/** A folder of ours in the temporary directory, where anybody may make folders: one that is somebody else's is not taken. */
export async function sharedFolder(name: string): Promise<string> {
  const folder = path.join(tmpdir(), `belfry-${name}`);
  await mkdir(folder, { recursive: true });
  const found = await lstat(folder);
  if (found.isDirectory() && found.uid === process.getuid?.()) {
    // Whatever the umask: for the server's account to enter, for nobody else to write.
    await chmod(folder, 0o755);
    return folder;
  }
  throw new BelfryError(
    'unavailable',
    `${folder} belongs to somebody else: remove it, or work in a folder that all may enter.`,
  );
}

/** Whether the account may walk through every folder down to this one. Always true for this process's own account. */
export async function canReach(directory: string, account: Account): Promise<boolean> {
  if (account.uid === undefined) return true;
  for (let folder = directory; ; folder = path.dirname(folder)) {
    const { mode, uid, gid } = await stat(folder);
    const bit = uid === account.uid ? 0o100 : gid === account.gid ? 0o010 : 0o001;
    if ((mode & bit) === 0) return false;
    if (folder === path.dirname(folder)) return true;
  }
}
