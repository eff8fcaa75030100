/** The public HTTP API. */

/** In this tab's memory only: the key, another project than the key's, gRPC's address, what to do when the key is refused. */
export const tab = { key: '', project: '', grpc: '', refused: () => {} };

/** An error of the API: its code, and every field that is wrong. */
export class ApiError extends Error {
  /** @param {number} status @param {any} error */
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
  if (tab.key) all.Authorization = `Bearer ${tab.key}`;
  if (tab.project) all['X-Project-ID'] = tab.project;
  return all;
}

/** @param {Response} response */
async function failure(response) {
  let error = { message: `The gateway answered ${response.status}.` };
  try {
    error = (await response.json()).error ?? error;
  } catch { /* not from the API */ }
  if (response.status === 401 && tab.key) tab.refused();
  return new ApiError(response.status, error);
}

/**
 * @param {string} method @param {string} path
 * @param {Options} [options]
 */
export async function send(method, path, options = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(options.query ?? {})) {
    if (value !== '' && value != null && value !== false) query.set(name, String(value));
  }
  const text = query.toString();
  const body = options.body && JSON.stringify(options.body);
  /** @type {Record<string, string>} */
  const type = body ? { 'Content-Type': 'application/json' } : {};
  let response;
  try {
    response = await fetch(path + (text && `?${text}`), {
      method, body, headers: headers({ ...type, ...options.headers }), signal: options.signal, cache: 'no-store',
    });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError(0, { message: 'The gateway is unreachable.' });
  }
  if (!response.ok) throw await failure(response);
  return response;
}

/** @param {string} method @param {string} path @param {Options} [options] */
export async function call(method, path, options) {
  const response = await send(method, path, options);
  return response.status === 204 ? null : response.json();
}

/** @param {string} path @param {Record<string, any>} [query] @param {AbortSignal} [signal] @returns {Promise<Answer>} */
export const get = (path, query, signal) => call('GET', path, { query, signal });

/** Every page of a list, up to a bound. @param {string} path @param {Record<string, any>} [query] @param {AbortSignal} [signal] */
export async function all(path, query = {}, signal = undefined, most = 1000) {
  /** @type {any[]} */
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
