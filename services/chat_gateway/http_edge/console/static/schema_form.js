/** A form from a JSON Schema (2020-12); other schemas are edited as JSON. */
import { html, pretty, useState } from './lib.js';
import { Check, Select, Text } from './ui.js';

/** @param {Schema} schema @param {any} root @returns {any} */
function resolved(schema, root) {
  const name = schema?.$ref?.replace(/^#\/\$defs\//, '');
  const options = (schema?.anyOf ?? schema?.oneOf)?.filter((one) => one.type !== 'null');
  if (name && root.$defs?.[name]) return { ...root.$defs[name], ...schema, $ref: undefined };
  return options?.length === 1 ? { ...resolved(options[0], root), description: schema.description } : { ...schema };
}

/** @param {JsonProps} p */
export function Json({ label, value, onInput, error, hint }) {
  const [text, setText] = useState(value === undefined ? '' : pretty(value));
  const [problem, setProblem] = useState('');
  /** @type {Act} */ const change = (typed) => {
    setText(typed);
    try {
      onInput(typed.trim() ? JSON.parse(typed) : undefined);
      setProblem('');
    } catch {
      setProblem('Not valid JSON.');
    }
  };
  return html`<${Text} wide class="code" lines=${Math.min(text.split('\n').length + 1, 14)} label=${`${label} (JSON)`} value=${text} onInput=${change} error=${problem || error} hint=${hint} />`;
}

/** @param {PropertyProps} p */
function Property({ name, schema, root, value, required, onInput, error }) {
  const rule = resolved(schema, root);
  if (Array.isArray(rule.type)) rule.type = [typeof value, ...rule.type].find((one) => rule.type.includes(one) && one !== 'null');
  const label = `${rule.title && rule.title !== name ? rule.title : name}${required ? ' *' : ''}`;
  const hint = rule.description;
  const shown = rule.default === undefined ? {} : { placeholder: String(rule.default) };
  if (rule.enum) return html`<${Select} ...${{ label, value, error, hint }} options=${['', ...rule.enum.map(String)]} onInput=${(text) => onInput(text ? rule.enum[rule.enum.map(String).indexOf(text)] : undefined)} />`;
  if (rule.type === 'boolean') return html`<${Check} label=${label} value=${value ?? rule.default ?? false} onInput=${onInput} />`;
  if (rule.type === 'number' || rule.type === 'integer') {
    return html`<${Text} ...${{ label, error, hint, ...shown }} type="number" step=${rule.type === 'integer' ? 1 : 'any'} min=${rule.minimum} max=${rule.maximum} value=${value} onInput=${(text) => onInput(text === '' ? undefined : Number(text))} />`;
  }
  if (rule.type === 'string') return html`<${Text} ...${{ label, error, hint, ...shown }} value=${value} lines=${(rule.maxLength ?? 0) > 500 ? 4 : undefined} onInput=${(text) => onInput(text || undefined)} />`;
  if (rule.type === 'array' && resolved(rule.items, root).type === 'string') {
    return html`<${Text} ...${{ label, error }} hint=${`${hint ?? ''} One per line.`} lines="3" value=${(value ?? []).join('\n')} onInput=${(text) => onInput(text ? text.split('\n') : undefined)} />`;
  }
  return html`<${Json} ...${{ label, value, onInput, error, hint }} />`;
}

/** @param {SchemaFormProps} p */
export function SchemaForm({ schema, value, path, wrong, set }) {
  const [name, setName] = useState('');
  const others = Object.keys(value ?? {}).filter((one) => !schema.properties?.[one]);
  const open = schema.additionalProperties !== false;
  const rule = typeof schema.additionalProperties === 'object' ? schema.additionalProperties : null;
  const rows = [...Object.entries(schema.properties ?? {}), ...others.map((one) => [one, rule ?? { type: typeof value[one] === 'object' ? 'json' : typeof value[one] }])];
  return html`${rows.map(([one, its]) => html`<${Property} key=${one} name=${one} schema=${its} root=${schema} value=${value?.[one]} required=${schema.required?.includes(one)}
      error=${wrong(`${path}.${one}`)} onInput=${(/** @type {any} */ to) => set(`${path}.${one}`, to)} />`)}
    ${open && html`<div class="row wide"><${Text} label="Another parameter" value=${name} onInput=${setName} placeholder="name" />
      <button type="button" disabled=${!/^[\w-]+$/.test(name) || others.includes(name)} onClick=${() => { set(`${path}.${name}`, ' '); setName(''); }}>Add</button></div>`}`;
}
