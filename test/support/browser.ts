/**
 * A real Chromium for tests, from the binary that npm brought, with its libraries and fonts: nothing need be installed.
 * It is unpacked once per user and version into the temporary directory (some 250 MB, a few seconds).
 */
import { execFile } from 'node:child_process';
import { access, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir, userInfo } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { type Browser, chromium } from 'playwright-core';
import { projectRoot } from './build.js';

/** Runs without its sandbox, which needs rights that containers and root do not have: open only pages of our own in it. */
export async function launchBrowser(): Promise<Browser> {
  const folder = await unpack();
  return chromium.launch({
    executablePath: path.join(folder, 'chromium'),
    args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--font-render-hinting=none'],
    env: {
      PATH: process.env['PATH'] ?? '',
      HOME: folder,
      LD_LIBRARY_PATH: path.join(folder, 'al2023', 'lib'),
      FONTCONFIG_PATH: path.join(folder, 'fonts'),
    },
  });
}

async function unpack(): Promise<string> {
  const manifest = path.join(projectRoot, 'node_modules', '@sparticuz', 'chromium', 'package.json');
  const { version } = JSON.parse(await readFile(manifest, 'utf8')) as { version: string };
  const folder = path.join(tmpdir(), `belfry-chromium-${version}-${userInfo().uid}`);
  if (await exists(folder)) return folder;
  const fresh = await mkdtemp(path.join(tmpdir(), 'belfry-chromium-new-'));
  try {
    // The package unpacks into TMPDIR, its libraries only where it believes to be in AWS: so in a process of its own.
    await promisify(execFile)(
      process.execPath,
      ['--input-type=module', '--eval', `await (await import('@sparticuz/chromium')).default.executablePath()`],
      { cwd: projectRoot, env: { TMPDIR: fresh, HOME: fresh, AWS_EXECUTION_ENV: 'AWS_Lambda_nodejs22.x' } },
    );
    await writeFile(path.join(fresh, 'fonts', 'fonts.conf'), fontsConf(folder));
    await rename(fresh, folder);
  } catch (error) {
    await rm(fresh, { recursive: true, force: true });
    // Another worker was faster.
    if (!(await exists(folder))) throw error;
  }
  return folder;
}

/** The system's fonts where there are any, and the one of the package for the rest. */
function fontsConf(folder: string): string {
  return `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <include ignore_missing="yes">/etc/fonts/fonts.conf</include>
  <dir>${folder}/fonts</dir>
  <cachedir>${folder}/fonts-cache</cachedir>
</fontconfig>
`;
}

async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}
