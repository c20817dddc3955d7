/**
 * The sources as plain JavaScript in dist-test/, for tests that need a process of their own (to kill or to stop it).
 * Only what changed since the last run is translated, without checking types; runs at the same time do not disturb each other.
 */
import { copyFile, mkdir, readdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

export const projectRoot = fileURLToPath(new URL('../..', import.meta.url));

/** As deep in the project as src and dist, so that what is found relative to a file is found from here too. */
export const testBuild = path.join(projectRoot, 'dist-test');

export async function buildForTests(): Promise<void> {
  const source = path.join(projectRoot, 'src');
  const files = await readdir(source, { recursive: true, withFileTypes: true });
  await Promise.all(
    files
      .filter((file) => file.isFile())
      .map((file) => translate(source, path.relative(source, path.join(file.parentPath, file.name)))),
  );
}

async function translate(source: string, file: string): Promise<void> {
  const from = path.join(source, file);
  const to = path.join(testBuild, file.replace(/\.ts$/, '.js'));
  const [{ mtimeMs }, built] = await Promise.all([stat(from), stat(to).catch(() => null)]);
  if (built !== null && built.mtimeMs > mtimeMs) return;
  await mkdir(path.dirname(to), { recursive: true });
  const fresh = `${to}.${process.pid}`;
  if (file.endsWith('.ts')) await writeFile(fresh, toJavaScript(await readFile(from, 'utf8'), from));
  else await copyFile(from, fresh);
  await rename(fresh, to);
}

function toJavaScript(text: string, fileName: string): string {
  const compilerOptions: ts.CompilerOptions = {
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.ESNext,
    verbatimModuleSyntax: true,
    inlineSourceMap: true,
  };
  return ts.transpileModule(text, { fileName, compilerOptions }).outputText;
}
