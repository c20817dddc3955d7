/**
 * The demo's static page and the client package as the browser loads it: read once at the start, served by the gateway
 * beside `/ws`, so that a person needs one address only. Nothing comes from a network.
 */
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { BelfryError } from '../errors.js';

export interface Page {
  readonly type: string;
  readonly body: string;
  readonly headers?: Readonly<Record<string, string>>;
}

const types: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
};

/** Every page by its path. Throws `not_found` when this is not the built program: a browser can't load TypeScript. */
export async function readPages(): Promise<Map<string, Page>> {
  const folder = (name: string): string => fileURLToPath(new URL(`../${name}`, import.meta.url));
  const pages = new Map<string, Page>([
    ...(await readFolder(folder('console/demo'), '/demo')),
    ...(await readFolder(folder('client'), '/belfry/client')),
    ...(await readFolder(folder('protocol'), '/belfry/protocol')),
  ]);
  const index = pages.get('/demo/index.html');
  if (index === undefined || !pages.has('/belfry/client/index.js')) {
    throw new BelfryError('not_found', 'The demo runs from the built program: run npm run build.');
  }
  pages.set('/', index);
  return pages;
}

async function readFolder(folder: string, at: string): Promise<[string, Page][]> {
  const names = await readdir(folder).catch(() => []);
  const wanted = names.filter((name) => types[path.extname(name)] !== undefined);
  return Promise.all(
    wanted.map(async (name): Promise<[string, Page]> => {
      const type = types[path.extname(name)] ?? 'text/plain';
      return [`${at}/${name}`, { type, body: await readFile(path.join(folder, name), 'utf8') }];
    }),
  );
}
