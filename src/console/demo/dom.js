/** Elements without a framework. Text is always set as text, never as HTML. */

/**
 * An element: properties that begin with `on` are listeners, `class`, `data-…`, `aria-…` and the like are attributes; false
 * and null leave an attribute out.
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === false || value === undefined) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** One of the symbols at the head of the page. */
export function icon(name) {
  const namespace = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(namespace, 'svg');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  const use = document.createElementNS(namespace, 'use');
  use.setAttribute('href', `#i-${name}`);
  svg.append(use);
  return svg;
}

/** Sets text only where it differs, so that screen readers and animations are not disturbed. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Starts a CSS animation anew. */
export function replay(element, className) {
  element.classList.remove(className);
  void element.offsetWidth;
  element.classList.add(className);
}

/** Milliseconds as a person reads them: 0.4, 12.3, 340; from ten seconds on 18.4 s. */
export function formatMs(ms) {
  const value = Math.max(0, ms);
  if (value < 99.95) return value.toFixed(1);
  return value < 9999.5 ? Math.round(value).toLocaleString('en') : `${(value / 1000).toFixed(1)} s`;
}

/** The same with its unit. */
export function formatDuration(ms) {
  const text = formatMs(ms);
  return text.endsWith('s') ? text : `${text} ms`;
}

/** For screen readers; one voice for the whole page. */
export function announce(text) {
  const announcer = document.getElementById('announcer');
  if (announcer !== null) announcer.textContent = text;
}
