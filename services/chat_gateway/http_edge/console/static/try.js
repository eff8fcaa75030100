/** Try: a chat with any revision of an agent, or with two of them side by side. */
import { all } from './api.js';
import { Column } from './chat.js';
import { bodyOf, preview } from './conversation.js';
import { html, instead, link, useLoad, useRef, useState } from './lib.js';
import { Prompt } from './turn.js';
import { Badge, Empty, Problem, Select, Text } from './ui.js';

const PICTURES = ['image/png', 'image/jpeg', 'image/gif', 'image/webp'];
const MOST_BYTES = 8 * 1024 * 1024;

/** @param {File} file @returns {Promise<string>} */
const asUrl = (file) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(String(reader.result));
  reader.onerror = () => reject(new Error(`${file.name} can’t be read.`));
  reader.readAsDataURL(file);
});

/** @param {PicturesProps} p */
const Pictures = ({ pictures, setPictures }) => (pictures.length ? html`<div class="row">${pictures.map((url, i) => html`<span class="thumb">
  <img src=${url} alt=${`Picture ${i + 1}`} /><button class="quiet" aria-label=${`Remove picture ${i + 1}`}
    onClick=${() => setPictures(pictures.filter((_, n) => n !== i))}>✕</button></span>`)}</div>` : null);

/** @param {ComposerProps} p */
function Composer({ busy, onSend, onStop, onPrompt }) {
  const [text, setText] = useState('');
  const [pictures, setPictures] = useState([]);
  const [error, setError] = useState(null);
  const [over, setOver] = useState(false);
  const files = useRef(null);
  /** @param {FileList} list */
  const add = async (list) => {
    const wrong = [...list].find((one) => !PICTURES.includes(one.type) || one.size > MOST_BYTES);
    setError(wrong && { message: `${wrong.name} is not a PNG, JPEG, GIF or WebP picture of at most 8 MB.` });
    if (!wrong) setPictures([...pictures, ...await Promise.all([...list].map(asUrl))]);
  };
  const content = () => (pictures.length
    ? [...(text ? [{ type: 'text', text }] : []), ...pictures.map((url) => ({ type: 'image_url', image_url: { url } }))] : text);
  const submit = () => {
    if (busy || !(text.trim() || pictures.length)) return;
    onSend(content());
    setText('');
    setPictures([]);
  };
  return html`<form class=${`composer card${over ? ' over' : ''}`} onSubmit=${instead(submit)}
      onDragOver=${instead(() => setOver(true))} onDragLeave=${() => setOver(false)} onDrop=${instead((e) => { setOver(false); add(e.dataTransfer.files); })}>
    <${Problem} error=${error} /><${Pictures} ...${{ pictures, setPictures }} />
    <textarea aria-label="Message" rows="2" dir="auto" placeholder="Write a message; drop or paste pictures" value=${text}
      onInput=${(e) => setText(e.target.value)} onPaste=${(e) => { if (e.clipboardData.files.length) { e.preventDefault(); add(e.clipboardData.files); } }}
      onKeyDown=${(e) => { if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) { e.preventDefault(); submit(); } }} />
    <div class="row"><input type="file" hidden multiple ref=${files} accept=${PICTURES.join()} onChange=${(e) => { add(e.target.files); e.target.value = ''; }} />
      <button type="button" class="quiet" onClick=${() => files.current.click()}>Add picture</button>
      <button type="button" class="quiet" onClick=${() => onPrompt(content())}>Show prompt</button>
      <span class="right">${busy ? html`<button type="button" onClick=${onStop}>Stop</button>`
    : html`<button class="primary" disabled=${!(text.trim() || pictures.length)}>Send</button>`}</span></div></form>`;
}

/** @param {TargetProps} p */
function Target({ label, agents, target, onChange }) {
  const known = agents.find((one) => one.id === target.agent);
  const revisions = Array.from({ length: Math.min(known?.revision ?? 0, 200) }, (_, i) => String(known.revision - i));
  return html`<fieldset class="row target"><legend class="hidden">${label}</legend>
    ${agents.length ? html`<${Select} label="Agent" value=${target.agent} options=${agents.map((one) => [one.id, one.name || one.id])}
        onInput=${(agent) => onChange({ ...target, agent, revision: '', session: '' })} />`
    : html`<${Text} label="Agent" value=${target.agent} onInput=${(agent) => onChange({ ...target, agent, session: '' })} />`}
    <${Select} label="Revision" value=${target.revision} options=${[['', 'Current'], ...revisions.map((one) => [one, one])]}
      onInput=${(revision) => onChange({ ...target, revision })} /></fieldset>`;
}

/** @param {TryProps} p */
export default function Try({ where, caller, may }) {
  const { data: agents, error } = useLoad((signal) => (may('agents:read') ? all('/v1/agents', { page_size: 200 }, signal) : Promise.resolve([])), []);
  const asked = where.query;
  const first = { agent: where.parts[1] ?? '', revision: asked.get('revision') ?? '', session: asked.get('session') ?? '' };
  const [targets, setTargets] = useState([first]);
  const [user, setUser] = useState(asked.get('user') ?? '');
  const [draft, setDraft] = useState(null);
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(0);
  const columns = useRef([]);
  if (error) return html`<${Problem} error=${error} />`;
  if (!agents) return null;
  if (!agents.length && may('agents:read')) {
    return html`<${Empty} title="No agents yet" action=${html`<a class="button primary" href="#/agents/~new">Create an agent</a>`}>An agent is a model with instructions. Create one, and talk to it here.<//>`;
  }
  const whole = targets.map((one) => ({ ...one, agent: one.agent || agents[0]?.id || '', user: caller.user_id ?? user }));
  /** @type {Act} */ const change = (i, target) => setTargets((old) => old.map((one, n) => (n === i ? { ...one, ...target } : one)));
  /** @type {Act} */ const show = (content) => preview(bodyOf(whole[0], { messages: [{ role: 'user', content: content || '…' }] })).then(setDraft, setProblem);
  return html`<div class="head"><h1>Try</h1>
      ${!caller.user_id && html`<${Text} label="User (optional)" value=${user} onInput=${setUser} placeholder="none" />`}
      <button onClick=${() => setTargets(targets.length > 1 ? targets.slice(0, 1) : [...targets, { ...whole[0], session: '' }])}>
        ${targets.length > 1 ? 'Close comparison' : 'Compare two revisions'}</button>
      <button onClick=${() => { setTargets(targets.map((one) => ({ ...one, session: '' }))); columns.current.forEach((one) => one?.clear()); }}>New session</button></div>
    <${Problem} error=${problem} />
    <div class=${targets.length > 1 ? 'two' : ''}>${whole.map((target, i) => html`<section class="column" aria-label=${`Conversation ${i + 1}`} key=${i}>
      <div class="row"><${Target} label=${`Conversation ${i + 1}`} ...${{ agents, target }} onChange=${(one) => { change(i, one); columns.current[i]?.clear(); }} />
        ${target.session && html`<${Badge}>session ${may('sessions:read') ? html`<a href=${link('sessions', target.session)}>${target.session}</a>` : target.session}<//>`}</div>
      <${Column} target=${target} handle=${(one) => { columns.current[i] = one; }} onSession=${(session) => change(i, { session })}
        onBusy=${(on) => setBusy((n) => n + (on ? 1 : -1))} /></section>`)}</div>
    <${Composer} busy=${busy > 0} onPrompt=${show} onStop=${() => columns.current.forEach((one) => one?.stop())}
      onSend=${(content) => columns.current.slice(0, targets.length).forEach((one) => one?.say(content))} />
    ${draft && html`<${Prompt} prompt=${draft} onClose=${() => setDraft(null)} />`}`;
}
