/** A resource edited as form and YAML, validated by the gateway while typing. */
import { call } from './api.js';
import { clean, html, useEffect, useState } from './lib.js';
import { Badge, Field } from './ui.js';
import { dump, load } from './yaml.js';

const OUTPUT = ['object', 'uid', 'revision', 'etag', 'create_time', 'update_time', 'delete_time', 'purge_time'];
const PAUSE_MS = 350;

/** Without output-only and empty fields. @param {any} value */
function writable(value) {
  /** @type {Act} */ const empty = (one) => one === '' || one === null || (typeof one === 'object' && Object.keys(one).length === 0);
  return Object.fromEntries(Object.entries(value).filter(([name, one]) => !OUTPUT.includes(name) && !empty(one)));
}

/** A copy with a value at a path; undefined removes it, and objects that become empty. @param {any} value @param {string[]} path @param {any} to @returns {any} */
export function put(value, [name, ...rest], to) {
  const inner = rest.length ? put(value?.[name] ?? {}, rest, to) : to;
  const { [name]: _, ...others } = value ?? {};
  if (inner === undefined || (rest.length && Object.keys(inner).length === 0)) return others;
  return value && name in value ? { ...value, [name]: inner } : { ...others, [name]: inner };
}

/**
 * A draft of an existing resource (with an etag), or of a new one.
 * @param {string} kind its collection in the API, such as `agents` @param {any} initial @param {boolean} write @param {Act} onSaved
 */
export function useDraft(kind, initial, write, onSaved) {
  const old = initial.etag;
  const first = old ? writable(initial) : initial;
  const [draft, setDraft] = useState({ value: first, text: `${dump(first)}\n`, problem: '' });
  const [checked, setChecked] = useState({ error: null, busy: write });
  const [failure, setFailure] = useState(null);
  /** @type {Act} */ const send = (body, more) => call(old ? 'PUT' : 'POST', `/v1/${kind}${old ? `/${initial.id}` : ''}`, { body, ...more });
  useEffect(() => {
    if (draft.problem || !write) return undefined;
    const aborter = new AbortController();
    setChecked((now) => ({ ...now, busy: true }));
    const timer = setTimeout(() => send(draft.value, { query: { validate_only: true }, signal: aborter.signal }).then(
      () => setChecked({ error: null, busy: false }),
      (/** @type {any} */ error) => aborter.signal.aborted || setChecked({ error, busy: false }),
    ), PAUSE_MS);
    return () => { clearTimeout(timer); aborter.abort(); };
  }, [draft.text]);
  /** @type {Act} */ const save = (query) => send(draft.value, { query, headers: old && { 'If-Match': `"${old}"` } }).then(onSaved, setFailure);
  /** @type {Act} */ const setText = (text) => {
    try {
      const value = load(text) ?? {};
      if (typeof value !== 'object' || Array.isArray(value)) throw new Error('A mapping is expected, such as `id: support`.');
      setDraft({ value, text, problem: '' });
    } catch (error) {
      setDraft((now) => ({ ...now, text, problem: /** @type {Error} */ (error).message }));
    }
  };
  /** @type {Act} */ const set = (path, to) => setDraft((now) => {
    const value = put(now.value, path.split('.'), to === '' ? undefined : to);
    return { value, text: `${dump(value)}\n`, problem: '' };
  });
  /** @type {any[]} */
  const violations = checked.error?.violations ?? [];
  /** @type {Act} */ const wrong = (path) => violations.find((one) => one.field === path)?.description;
  const ready = !draft.problem && !checked.error && !checked.busy;
  return { ...draft, ...checked, write, failure, violations, wrong, set, setText, save, ready };
}

/** @param {YamlProps} p */
export function Yaml({ draft }) {
  const lines = Math.min(Math.max(draft.text.split('\n').length + 1, 12), 44);
  return html`<section class="card" aria-label="YAML"><header><h2>YAML</h2><${Verdict} draft=${draft} /></header>
    <${Field} label="Definition" error=${draft.problem} input=${(attributes) => html`<textarea ...${attributes} class="code" rows=${lines}
      spellcheck=${false} readonly=${!draft.write} value=${draft.text} onInput=${(e) => draft.setText(e.target.value)} />`} />
    ${draft.violations.length > 0 && html`<ul class="violations">${draft.violations.map((one) => html`<li class="wrong"><code>${one.field || 'general'}</code> ${clean(one.description)}</li>`)}</ul>`}
    ${draft.error && !draft.violations.length && html`<p class="wrong">${clean(draft.error.message)}</p>`}</section>`;
}

/** @param {VerdictProps} p */
const Verdict = ({ draft }) => html`<span role="status">${draft.problem || draft.error
  ? html`<${Badge} kind="bad">not valid<//>` : draft.busy ? html`<${Badge}>checking…<//>` : html`<${Badge} kind="good">valid<//>`}</span>`;
