/** The request as code: curl, Python, grpcurl. */
import { tab } from './api.js';
import { html, json, useState } from './lib.js';
import { Copy, Dialog } from './ui.js';

const LONG = 2000;

/** Shortens pictures, which would make the code unreadable. @param {any} value @returns {any} */
function readable(value) {
  if (typeof value === 'string' && value.startsWith('data:') && value.length > LONG) return `${value.slice(0, value.indexOf(',') + 1)}…`;
  if (Array.isArray(value)) return value.map(readable);
  if (value && typeof value === 'object') return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, readable(v)]));
  return value;
}

/** @param {string} text */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** @param {any} value @returns {string} */
function python(value) {
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (Array.isArray(value)) return `[${value.map(python).join(', ')}]`;
  if (value && typeof value === 'object') return `{${Object.entries(value).map(([k, v]) => `${json(k)}: ${python(v)}`).join(', ')}}`;
  return value == null ? 'None' : json(value);
}

/** @param {any} body */
function curl(body) {
  const lines = [`curl -N ${location.origin}/v1/chat/completions`, "-H 'Content-Type: application/json'"];
  if (tab.key) lines.push('-H "Authorization: Bearer $PARLEY_API_KEY"');
  if (tab.project) lines.push(`-H ${quoted(`X-Project-ID: ${tab.project}`)}`);
  return [...lines, `-d ${quoted(json(readable(body)))}`].join(' \\\n  ');
}

/** @param {any} body */
function openai(body) {
  const { model, messages = [], stream_options, stream, ...extra } = readable(body);
  const key = tab.key ? 'os.environ["PARLEY_API_KEY"]' : '"-"';
  const more = tab.project ? `, default_headers={"X-Project-ID": ${json(tab.project)}}` : '';
  return `${tab.key ? 'import os\n\n' : ''}from openai import OpenAI

client = OpenAI(base_url="${location.origin}/v1", api_key=${key}${more})
stream = client.chat.completions.create(
    model=${json(model)},
    messages=${python(messages)},
    stream=True,
    extra_body=${python(extra)},
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)`;
}

/** @param {any} message */
function proto({ role, content, tool_call_id }) {
  const parts = Array.isArray(content)
    ? { parts: content.map((one) => (one.type === 'text' ? { text: one.text } : { image_url: one.image_url })) }
    : { content };
  return { role: `ROLE_${role.toUpperCase()}`, ...parts, tool_call_id };
}

/** @param {any} body */
function grpcurl(body) {
  const { model, messages, approvals, session_id, user_id } = readable(body);
  const [agent_id, revision] = model.split('@');
  // JSON leaves out what is undefined.
  const input = {
    project: tab.project || undefined, agent_id, agent_revision: revision, session_id, user_id, messages: messages?.map(proto), approvals,
  };
  const plain = location.protocol === 'https:' ? '' : ' -plaintext';
  const key = tab.key ? ' -H "Authorization: Bearer $PARLEY_API_KEY"' : '';
  return `grpcurl${plain}${key} \\\n  -d ${quoted(json({ input }))} \\\n  ${tab.grpc} parley.chat.v1.ChatService/StreamComplete`;
}

/** @type {Record<string, (body: any) => string>} */
const KINDS = { curl, Python: openai, grpcurl };

/** @param {CodeProps} p */
export function Code({ body, onClose }) {
  const [kind, setKind] = useState('curl');
  const text = KINDS[kind](body);
  return html`<${Dialog} title="Code" onClose=${onClose}>
    <div class="row" role="group" aria-label="Language">${Object.keys(KINDS).map((one) => html`
      <button class=${one === kind ? 'primary' : ''} aria-pressed=${one === kind} onClick=${() => setKind(one)}>${one}</button>`)}
      <${Copy} text=${text} /></div>
    <pre tabindex="0"><code>${text}</code></pre><//>`;
}
