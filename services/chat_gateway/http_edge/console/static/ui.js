/** Components shared by the pages. */
import { ago, clean, html, instead, pretty, short, useEffect, useRef, useState } from './lib.js';

let ids = 0;
/** @param {string} prefix */
const useId = (prefix) => useRef(`${prefix}-${++ids}`).current;

/** @param {FieldProps} p */
export function Field({ label, error, hint, wide, input }) {
  const id = useId('field');
  const describes = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(' ') || undefined;
  return html`<div class=${`field${wide ? ' wide' : ''}`}>
    <label for=${id}>${label}</label>
    ${input({ id, 'aria-describedby': describes, 'aria-invalid': error ? 'true' : undefined })}
    ${hint && html`<span class="hint" id=${`${id}-hint`}>${hint}</span>`}
    ${error && html`<span class="wrong" id=${`${id}-error`}>${clean(error)}</span>`}
  </div>`;
}

/** @param {TextProps} p */
export function Text({ label, value, onInput, error, hint, wide, lines, ...more }) {
  return html`<${Field} ...${{ label, error, hint, wide }} input=${(attributes) => html`
    <${lines ? 'textarea' : 'input'} ...${attributes} ...${more} rows=${lines} dir="auto" value=${value ?? ''} onInput=${(e) => onInput(e.target.value)} />`} />`;
}

/** @param {SelectProps} p */
export function Select({ label, value, options, onInput, error, hint, wide }) {
  const pairs = options.map((one) => (Array.isArray(one) ? one : [one, one || '–']));
  if (value && !pairs.some(([one]) => one === value)) pairs.push([value, value]);
  return html`<${Field} ...${{ label, error, hint, wide }} input=${(attributes) => html`
    <select ...${attributes} value=${value ?? ''} onChange=${(e) => onInput(e.target.value)}>
      ${pairs.map(([one, text]) => html`<option value=${one} selected=${one === (value ?? '')}>${short(text, 80)}</option>`)}
    </select>`} />`;
}

/** @param {CheckProps} p */
export const Check = ({ label, value, onInput }) => html`<label class="check">
  <input type="checkbox" checked=${value} onChange=${(e) => onInput(e.target.checked)} /> ${label}</label>`;

/** @param {ProblemProps} p */
export function Problem({ error }) {
  if (!error) return null;
  const fields = (error.violations ?? []).filter((one) => one.field);
  return html`<div class="notice bad" role="alert"><strong>${short(error.message, 1000)}</strong>
    ${fields.length > 1 && html`<ul>${fields.map((one) => html`<li><code>${clean(one.field)}</code> ${clean(one.description)}</li>`)}</ul>`}</div>`;
}

/** @param {EmptyProps} p */
export const Empty = ({ title, children, action }) => html`<div class="empty"><h2>${title}</h2><p>${children}</p>${action}</div>`;

/** @param {BadgeProps} p */
export const Badge = ({ kind = '', children }) => html`<span class=${`badge ${kind}`}>${children}</span>`;

/** @param {TimeProps} p */
export const Time = ({ value }) => html`<time datetime=${value} title=${value}>${ago(value)}</time>`;

/** Text of others: in its own direction, shortened until expanded. @param {SaidProps} p */
export function Said({ value, max = 4000 }) {
  const [whole, setWhole] = useState(false);
  const text = String(value ?? '');
  if (text.length <= max) return html`<bdi dir="auto" class="said">${clean(text)}</bdi>`;
  return html`<bdi dir="auto" class="said">${whole ? clean(text) : short(text, max)}</bdi>
    <button class="link" onClick=${() => setWhole(!whole)}>${whole ? 'Show less' : `Show all ${text.length.toLocaleString('en')} characters`}</button>`;
}

/** Text, or a value as JSON. @param {PreProps} p */
export const Pre = ({ value, max = 20_000 }) => html`<pre tabindex="0"><code>${short(typeof value === 'string' ? value : pretty(value), max)}</code></pre>`;

/** @param {TableProps} p */
export const Table = ({ head, rows, label }) => html`<div class="scroll" tabindex="0" role="region" aria-label=${label}><table>
  <thead><tr>${head.map((one) => (one ? html`<th scope="col">${one}</th>` : html`<td></td>`))}</tr></thead>
  <tbody>${rows}</tbody></table></div>`;

/** @param {TabsProps} p */
export const Tabs = ({ tabs, current, label }) => html`<nav class="tabs" aria-label=${label}>
  ${tabs.map(([name, href]) => html`<a href=${href} aria-current=${name === current ? 'page' : undefined}>${name}</a>`)}</nav>`;

/** @param {CopyProps} p */
export function Copy({ text, label = 'Copy' }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(text).then(() => setDone(true), () => {});
    setTimeout(() => setDone(false), 1500);
  };
  return html`<button class="quiet" onClick=${copy}><span aria-live="polite">${done ? 'Copied' : label}</span></button>`;
}

/** @param {DialogProps} p */
export function Dialog({ title, onClose, children }) {
  const element = useRef(null);
  const id = useId('dialog');
  useEffect(() => {
    const dialog = element.current;
    dialog.showModal();
    return () => dialog.close();
  }, []);
  return html`<dialog ref=${element} aria-labelledby=${id} onCancel=${instead(onClose)}>
    <header><h2 id=${id}>${title}</h2><button class="quiet" aria-label="Close" onClick=${onClose}>✕</button></header>${children}</dialog>`;
}

/** A button that asks for confirmation. @param {ConfirmProps} p */
export function Confirm({ label, question, word = label, act, kind = 'quiet' }) {
  const [open, setOpen] = useState(false);
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const go = async () => {
    setBusy(true);
    try {
      await act();
      setOpen(false);
    } catch (problem) {
      setError(problem);
    }
    setBusy(false);
  };
  return html`<button class=${kind} onClick=${() => { setError(null); setOpen(true); }}>${label}</button>
    ${open && html`<${Dialog} title=${`${label}?`} onClose=${() => setOpen(false)}>
      <p>${question}</p><${Problem} error=${error} />
      <footer><button class="quiet" onClick=${() => setOpen(false)}>Cancel</button>
        <button class="danger" disabled=${busy} onClick=${go}>${word}</button></footer><//>`}`;
}
