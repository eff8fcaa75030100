/** Turns, live and stored. */
import { clean, duration, html, prettyJson, short, useState } from './lib.js';
import { Markdown } from './markdown.js';
import { Badge, Dialog, Pre, Said } from './ui.js';

/** Content of a message: text and embedded pictures; nothing is loaded from other hosts. @param {ContentProps} p */
export function Content({ content }) {
  if (!Array.isArray(content)) return html`<${Said} value=${content ?? ''} />`;
  return content.map((part) => {
    const url = part.image_url?.url ?? '';
    if (part.type === 'text' || part.type === 'refusal') return html`<${Said} value=${part.text ?? part.refusal} />`;
    if (/^data:image\/(png|jpeg|gif|webp);/.test(url)) return html`<img class="picture" src=${url} alt="Picture of the message" />`;
    return html`<${Badge}>${part.type}${url && ` ${short(url, 80)}`}<//>`;
  });
}

/** @param {ReasoningProps} p */
const Reasoning = ({ text, open = false }) => (text ? html`<details class="reasoning" open=${open}>
  <summary>Reasoning</summary><${Said} value=${text} /></details>` : null);

/** @type {Record<string, string>} */
const OUTCOMES = { ok: 'good', result: 'good', success: 'good' };

/** @param {ToolCallProps} p */
function ToolCall({ call, result }) {
  const state = call.outcome ?? (result === undefined ? '' : 'stored');
  return html`<details class="toolcall"><summary><code>${short(call.name, 80)}</code>
      ${call.server && html`<span class="dim"> at ${short(call.server, 60)}</span>`}
      <span class="right">${call.ms != null && html`<span class="dim">${duration(call.ms)} </span>`}
      ${state && html`<${Badge} kind=${OUTCOMES[state] ?? (state === 'stored' ? '' : 'warn')}>${clean(state)}<//>`}</span></summary>
    <${Pre} value=${prettyJson(call.arguments ?? '')} />
    ${result !== undefined && html`<h3>Result</h3><${Pre} value=${result} />`}
  </details>`;
}

/** Reasoning, tool calls and answer. @param {SpokenProps} p */
export const Spoken = ({ reasoning, open, calls, results, text, busy, refusal }) => html`<${Reasoning} text=${reasoning} open=${open} />
  ${calls.map((call) => html`<${ToolCall} key=${call.id} call=${call} result=${results?.get(call.id)} />`)}
  ${(text || busy) && html`<${Answer} text=${text} busy=${busy} />`}${refusal && html`<p class="notice">${short(refusal, 5000)}</p>`}`;

/** Tokens as text. @param {any} usage */
export function tokens(usage) {
  if (!usage) return '–';
  const cached = usage.prompt_tokens_details?.cached_tokens ?? usage.cached_tokens ?? 0;
  return `${usage.prompt_tokens} in${cached ? ` (${cached} cached)` : ''}, ${usage.completion_tokens} out`;
}

/** @param {PromptProps} p */
export function Prompt({ prompt, onClose }) {
  return html`<${Dialog} title="Exact prompt" onClose=${onClose}>
    <p class="dim">${prompt.messages.length} messages of revision ${prompt.agent_revision}. ${prompt.omitted_message_count
      ? html`<strong>The window leaves out ${prompt.omitted_message_count} earlier messages.</strong>` : 'The window leaves nothing out.'}</p>
    ${prompt.messages.map((one) => html`<section class="prompt"><h3>${one.role}</h3><${Content} content=${one.content} />
      ${(one.tool_calls ?? []).map((call) => html`<${ToolCall} call=${{ name: call.function.name, arguments: call.function.arguments }} />`)}</section>`)}
    ${prompt.tools.length > 0 && html`<details><summary>${prompt.tools.length} tools</summary><${Pre} value=${prompt.tools} max=${50_000} /></details>`}
    ${prompt.unavailable_tool_servers.map((one) => html`<p class="notice">${short(one.tool_server)}: ${short(one.reason)}</p>`)}<//>`;
}

/** Figures of a turn that ran here. @param {FactsProps} p */
export function Facts({ turn, onCode }) {
  const [open, setOpen] = useState(false);
  const facts = [['First token', duration(turn.first)], ['Total', duration(turn.total)], ['Tokens', tokens(turn.usage)],
    ['Revision', turn.revision || '–'], ['Provider', turn.provider || '–'], ['Ended by', turn.finish || '–']];
  return html`<div class="turnfacts"><dl class="facts">${facts.map(([name, value]) => html`<div><dt>${name}</dt><dd>${clean(value)}</dd></div>`)}</dl>
    <span class="right">${turn.prompt && html`<button class="quiet" onClick=${() => setOpen(true)}>Prompt${turn.prompt.omitted_message_count
      ? ` (${turn.prompt.omitted_message_count} left out)` : ''}</button>`}<button class="quiet" onClick=${onCode}>Code</button></span>
    ${open && html`<${Prompt} prompt=${turn.prompt} onClose=${() => setOpen(false)} />`}</div>`;
}

/** @param {AnswerProps} p */
const Answer = ({ text, busy }) => html`<div class=${`answer${busy ? ' busy' : ''}`}><${Markdown} text=${text} /></div>`;
