/** Something that is edited as a form and as YAML at once, and checked by the gateway as one types. */
import { html, useEffect, useRef, useState } from './lib.js';
import { Badge, Field } from './ui.js';
import { dump, load } from './yaml.js';

const OUTPUT = ['object', 'uid', 'revision', 'etag', 'create_time', 'update_time', 'delete_time', 'purge_time'];
const PAUSE_MS = 350;

/** Without what is output only, and what is empty. @param {any} value */
export function writable(value) {
  const empty = (one) => one === '' || one === null || (typeof one === 'object' && Object.keys(one).length === 0);
  return Object.fromEntries(Object.entries(value).filter(([name, one]) => !OUTPUT.includes(name) && !empty(one)));
}

/** A copy with a value at a path; undefined takes it away, and what is empty then. @param {any} value @param {string[]} path @param {any} to @returns {any} */
export function put(value, [name, ...rest], to) {
  const inner = rest.length ? put(value?.[name] ?? {}, rest, to) : to;
  const { [name]: _, ...others } = value ?? {};
  if (inner === undefined || (rest.length && Object.keys(inner).length === 0)) return others;
  return value && name in value ? { ...value, [name]: inner } : { ...others, [name]: inner };
}

/**
 * @param {any} initial @param {(value: any, signal: AbortSignal) => Promise<any>} validate rejects with what is wrong
 */
export function useDraft(initial, validate) {
  const [draft, setDraft] = useState({ value: initial, text: `${dump(initial)}\n`, problem: '' });
  const [checked, setChecked] = useState(/** @type {{error: any, busy: boolean}} */ ({ error: null, busy: true }));
  const last = useRef(validate);
  last.current = validate;
  useEffect(() => {
    if (draft.problem) return undefined;
    const aborter = new AbortController();
    setChecked((old) => ({ ...old, busy: true }));
    const timer = setTimeout(() => last.current(draft.value, aborter.signal).then(
      () => setChecked({ error: null, busy: false }),
      (error) => aborter.signal.aborted || setChecked({ error, busy: false }),
    ), PAUSE_MS);
    return () => { clearTimeout(timer); aborter.abort(); };
  }, [draft.text]);
  const setText = (text) => {
    try {
      const value = load(text) ?? {};
      if (typeof value !== 'object' || Array.isArray(value)) throw new Error('A mapping is expected, such as `id: support`.');
      setDraft({ value, text, problem: '' });
    } catch (error) {
      setDraft((old) => ({ ...old, text, problem: /** @type {Error} */ (error).message }));
    }
  };
  const set = (path, to) => setDraft((old) => {
    const value = put(old.value, path.split('.'), to === '' ? undefined : to);
    return { value, text: `${dump(value)}\n`, problem: '' };
  });
  const violations = checked.error?.violations ?? [];
  const wrong = (path) => violations.find((one) => one.field === path)?.description;
  const ready = !draft.problem && !checked.error && !checked.busy;
  return { ...draft, ...checked, violations, wrong, set, setText, ready };
}

export function Yaml({ draft }) {
  const lines = Math.min(Math.max(draft.text.split('\n').length + 1, 12), 44);
  return html`<section class="card" aria-label="YAML"><header><h2>YAML</h2><${Verdict} draft=${draft} /></header>
    <${Field} label="The whole of it" error=${draft.problem} input=${(attributes) => html`<textarea ...${attributes} class="code" rows=${lines}
      spellcheck=${false} value=${draft.text} onInput=${(e) => draft.setText(e.target.value)} />`} />
    ${draft.violations.length > 0 && html`<ul class="violations">${draft.violations.map((one) => html`<li class="wrong"><code>${one.field || 'all of it'}</code> ${one.description}</li>`)}</ul>`}
    ${draft.error && !draft.violations.length && html`<p class="wrong">${draft.error.message}</p>`}</section>`;
}

const Verdict = ({ draft }) => html`<span role="status">${draft.problem || draft.error
  ? html`<${Badge} kind="bad">not valid<//>` : draft.busy ? html`<${Badge}>checking…<//>` : html`<${Badge} kind="good">valid<//>`}</span>`;
