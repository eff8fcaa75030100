/** The public HTTP API. The key lives in this module, so in the memory of this tab, and nowhere else. */

let key = '';
let project = '';
let grpc = '';
let gone = () => {};

/** @param {string} value */
export const setKey = (value) => { key = value; };
/** @param {string} value '' for the key's own */
export const setProject = (value) => { project = value; };
/** @param {() => void} act what happens when the key is no longer accepted */
export const onUnauthenticated = (act) => { gone = act; };
export const hasKey = () => key !== '';
export const projectName = () => project;
export const grpcTarget = () => grpc;
/** @param {string} value host:port */
export const setGrpcTarget = (value) => { grpc = value; };

/** An error of the API: its code, and every field that is wrong. */
export class ApiError extends Error {
  /** @param {number} status @param {{message: string, code?: string, violations?: {field: string, description: string}[]}} error */
  constructor(status, error) {
    super(error.message);
    this.status = status;
    this.code = error.code ?? '';
    this.violations = error.violations ?? [];
  }
}

/** @param {Record<string, string>} [more] @returns {Record<string, string>} */
function headers(more) {
  const all = { ...more };
  if (key) all.Authorization = `Bearer ${key}`;
  if (project) all['X-Project-ID'] = project;
  return all;
}

/** @param {Response} response */
async function failure(response) {
  let error = { message: `The gateway answered ${response.status}.` };
  try {
    error = (await response.json()).error ?? error;
  } catch { /* not the API's own answer */ }
  if (response.status === 401 && key) gone();
  return new ApiError(response.status, error);
}

/**
 * @param {string} method @param {string} path
 * @param {{query?: Record<string, any>, body?: any, headers?: Record<string, string>, signal?: AbortSignal}} [options]
 */
export async function send(method, path, options = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(options.query ?? {})) {
    if (value !== '' && value != null && value !== false) query.set(name, String(value));
  }
  const text = query.toString();
  const body = options.body === undefined ? undefined : JSON.stringify(options.body);
  /** @type {Record<string, string>} */
  const type = body === undefined ? {} : { 'Content-Type': 'application/json' };
  let response;
  try {
    response = await fetch(path + (text && `?${text}`), {
      method, body, headers: headers({ ...type, ...options.headers }), signal: options.signal, cache: 'no-store',
    });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError(0, { message: 'The gateway can’t be reached.' });
  }
  if (!response.ok) throw await failure(response);
  return response;
}

/** @param {string} method @param {string} path @param {Parameters<typeof send>[2]} [options] */
export async function call(method, path, options) {
  const response = await send(method, path, options);
  return response.status === 204 ? null : response.json();
}

/** @param {string} path @param {Record<string, any>} [query] @param {AbortSignal} [signal] */
export const get = (path, query, signal) => call('GET', path, { query, signal });

/** Every page of a list, up to a bound. @param {string} path @param {Record<string, any>} [query] @param {AbortSignal} [signal] */
export async function all(path, query = {}, signal = undefined, most = 1000) {
  const found = [];
  let token = '';
  do {
    const page = await get(path, { ...query, page_token: token }, signal);
    found.push(...page.data);
    token = page.next_page_token;
  } while (token && found.length < most);
  return found;
}

/**
 * The events of a stream, as JSON; an error in it is thrown.
 * @param {Response} response @returns {AsyncGenerator<any>}
 */
export async function* events(response) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  const decoder = new TextDecoder();
  let rest = '';
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + decoder.decode(value, { stream: true })).split('\n');
      rest = /** @type {string} */ (lines.pop());
      for (const line of lines) {
        if (!line.startsWith('data: ')) continue;
        const data = line.slice(6).trim();
        if (data === '[DONE]') return;
        const event = JSON.parse(data);
        if (event.error) throw new ApiError(response.status, event.error);
        yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
