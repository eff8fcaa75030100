// The official client for Node.js over the Responses API: a function called, a chain, a conversation, a stream.
import OpenAI from "openai";

const [baseURL, agent, ...runs] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });
const parameters = { type: "object", properties: { number: { type: "number" } }, required: ["number"] };
const tools = [{ type: "function", name: "look_up", description: "Look a number up.", parameters, strict: false }];

async function respond(how, body) {
  if (how !== "stream") return client.responses.create({ model: agent, tools, ...body });
  const stream = client.responses.stream({ model: agent, tools, ...body });
  for await (const event of stream) if (typeof event.sequence_number !== "number") throw new Error(event.type);
  return stream.finalResponse();
}

async function talk(how) {
  const conversation = await client.conversations.create({});
  let answer = await respond(how, { input: "count", conversation: conversation.id });
  for (let call; (call = answer.output.find((item) => item.type === "function_call")); ) {
    const output = `found ${JSON.parse(call.arguments).number}`;
    const result = { type: "function_call_output", call_id: call.call_id, output };
    answer = await respond(how, { input: [result], previous_response_id: answer.id });
  }
  const read = await client.responses.retrieve(answer.id);
  if (read.output_text !== answer.output_text) throw new Error(read.output_text);
  return answer.output_text;
}

const said = [];
for (const how of runs) said.push(await talk(how));
console.log(JSON.stringify(said));
