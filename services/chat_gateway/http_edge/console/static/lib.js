/** Shared by all components: preact with htm, loading, safe text, times. */
import { h, render } from './vendor/preact.js';
import * as hooks from './vendor/hooks.js';
import htm from './vendor/htm.js';

export { render };
export const html = /** @type {Html} */ (htm.bind(h));
export const { useEffect, useLayoutEffect, useRef, useState } = /** @type {Hooks} */ (hooks);

/** Loads when `deps` change; results of earlier loads are dropped. @template T @param {(signal: AbortSignal) => Promise<T>} load @param {any[]} deps @returns {Loaded<T>} */
export function useLoad(load, deps) {
  const [state, setState] = useState({ data: undefined, error: undefined, loading: true });
  const [count, setCount] = useState(0);
  useEffect(() => {
    const aborter = new AbortController();
    setState((old) => ({ ...old, loading: true }));
    load(aborter.signal).then(
      (data) => aborter.signal.aborted || setState({ data, error: undefined, loading: false }),
      (error) => aborter.signal.aborted || setState({ data: undefined, error, loading: false }),
    );
    return () => aborter.abort();
  }, [...deps, count]);
  return { ...state, reload: () => setCount((n) => n + 1) };
}

/** A list page by page. @param {(token: string, signal?: AbortSignal) => Promise<Answer>} load @param {any[]} deps */
export function usePages(load, deps) {
  const { data, ...others } = useLoad((signal) => load('', signal), deps);
  const [more, setMore] = useState([]);
  useEffect(() => setMore([]), [data]);
  const token = (more.at(-1) ?? data)?.next_page_token;
  const next = token && (() => load(token).then((page) => setMore([...more, page])));
  return { ...others, rows: data && [data, ...more].flatMap((page) => page.data), next };
}

/** Instead of the browser’s default. @param {(event: any) => void} act */
export const instead = (act) => (/** @type {Event} */ event) => { event.preventDefault(); act(event); };

/** Calls `act` every `ms` while the page is visible. @param {() => void} act @param {number} ms */
export function useEvery(act, ms) {
  const last = useRef(act);
  last.current = act;
  useEffect(() => {
    const timer = setInterval(() => document.hidden || last.current(), ms);
    return () => clearInterval(timer);
  }, [ms]);
}

const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;

/** Text with control characters (ANSI, overrides of direction) made visible. @param {unknown} value */
export function clean(value) {
  return String(value ?? '').replace(CONTROL, (c) => {
    const code = c.charCodeAt(0);
    return code < 0x20 ? String.fromCharCode(0x2400 + code) : `[U+${code.toString(16).toUpperCase().padStart(4, '0')}]`;
  });
}

/** JSON that shows them, too, and means the same. @param {unknown} value */
export const json = (value) => JSON.stringify(value).replace(CONTROL, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);

/** The same, cut to a length. @param {unknown} value @param {number} max */
export function short(value, max = 200) {
  const text = String(value ?? '');
  return clean(text.length > max ? `${text.slice(0, max)}…` : text);
}

/** @param {unknown} value */
export const pretty = (value) => JSON.stringify(value, null, 2);

/** Arguments of a tool, indented; other text unchanged. @param {string} text */
export function prettyJson(text) {
  try {
    return text.length < 100_000 ? pretty(JSON.parse(text)) : text;
  } catch {
    return text;
  }
}

/** @param {number | null | undefined} ms */
export function duration(ms) {
  if (ms == null) return '–';
  return ms < 1000 ? `${ms < 10 ? +ms.toFixed(1) : Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
}

/** @param {string | undefined} text RFC 3339 */
export function ago(text) {
  const at = text ? Date.parse(text) : NaN;
  if (Number.isNaN(at)) return '–';
  const seconds = Math.round((Date.now() - at) / 1000);
  const size = Math.abs(seconds);
  /** @type {[Intl.RelativeTimeFormatUnit, number][]} */
  const units = [['day', 86400], ['hour', 3600], ['minute', 60], ['second', 1]];
  const [unit, length] = units.find(([, n]) => size >= n) ?? units[3];
  return new Intl.RelativeTimeFormat('en', { numeric: 'auto' }).format(-Math.trunc(seconds / length), unit);
}

/** The page’s place: `#/agents/hello?tab=x` is `{parts: ['agents', 'hello'], query}`. */
export function place() {
  const [path, query = ''] = location.hash.replace(/^#\/?/, '').split('?');
  const parts = path.split('/').filter(Boolean).map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  return { parts, query: new URLSearchParams(query) };
}

/** @param {...string} parts */
export const link = (...parts) => `#/${parts.map(encodeURIComponent).join('/')}`;

/** The kind of a tool server. @param {any} server */
export const kindOf = (server) => ['mcp', 'http', 'a2a'].find((kind) => server[kind]) ?? '';

/** @param {string} name @param {string} text @param {string} [type] */
export function download(name, text, type = 'application/json') {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const anchor = document.createElement('a');
  Object.assign(anchor, { href: url, download: name });
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
