// What a program does with the types that openapi-typescript generates: node generated_typescript.js URL KEY AGENT.
import { strict as assert } from "node:assert";
import createClient from "openapi-fetch";
import type { paths } from "./schema.js";

const [url, key, agentId] = process.argv.slice(2) as [string, string, string];
const client = createClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${key}` } });
const path = { params: { path: { agent_id: agentId } } };
const model = { provider: "mock", name: "mock-model", temperature: 0.5 };

const made = await client.POST("/v1/agents", {
  body: { id: agentId, name: "Generated", instructions: "You are a test.", model },
});
assert.ok(made.data, JSON.stringify(made.error));
const revision: number = made.data.revision;
assert.equal(revision, 1);
const name: string = made.data.name;
assert.equal(name, "Generated");

const patched = await client.PATCH("/v1/agents/{agent_id}", {
  ...path,
  body: { memory: { max_messages: 10 }, labels: { run: agentId } },
});
assert.equal(patched.data?.revision, 2);
const again = await client.POST("/v1/agents", { body: { id: agentId, model } });
assert.equal(again.error?.error.code, "agent_already_exists");
const listed = await client.GET("/v1/agents", { params: { query: { filter: `labels.run=${agentId}` } } });
assert.deepEqual(listed.data?.data.map((agent) => agent.id), [agentId]);
const read = await client.GET("/v1/agents/{agent_id}", path);
assert.deepEqual(read.data?.labels, { run: agentId });

const sessionId = `s-${agentId}`;
const answer = await client.POST("/v1/chat/completions", {
  body: { model: agentId, messages: [{ role: "user", content: "hi there" }], session_id: sessionId, busy: "reject" },
});
assert.ok(typeof answer.data === "object"); // a string where a stream was asked for
assert.ok(answer.data.choices[0]?.message.content?.endsWith("hi there"));
const inSession = { params: { path: { session_id: sessionId } } };
const messages = await client.GET("/v1/sessions/{session_id}/messages", inSession);
assert.deepEqual(messages.data?.data.map((message) => message.role), ["user", "assistant"]);
const session = await client.GET("/v1/sessions/{session_id}", inSession);
const turns: number | undefined = session.data?.turn_count;
assert.equal(turns, 1);

const newKey = await client.POST("/v1/api_keys", { body: { scopes: ["chat"] } });
assert.ok(newKey.data);
assert.ok(newKey.data.key?.startsWith("parley_"));
const revoked = await client.DELETE("/v1/api_keys/{key_id}", { params: { path: { key_id: newKey.data.id } } });
assert.equal(revoked.response.status, 204);
const deleted = await client.DELETE("/v1/agents/{agent_id}", path);
assert.equal(deleted.response.status, 204);
console.log("done");
