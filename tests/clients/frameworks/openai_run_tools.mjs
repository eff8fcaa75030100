// openai-node's `runTools`: two questions in one conversation; the first one takes many rounds of a tool.
import OpenAI from "openai";

const [baseURL, model, ...runs] = process.argv.slice(2);
const tools = [
  {
    type: "function",
    function: {
      name: "look_up",
      description: "Look a number up.",
      parameters: { type: "object", properties: { number: { type: "integer" } }, required: ["number"] },
      parse: JSON.parse,
      function: ({ number }) => `found ${number}`,
    },
  },
];

async function talk(how, session) {
  const defaultHeaders = session ? { "X-Session-ID": session } : {};
  const client = new OpenAI({ baseURL, apiKey: "unused", defaultHeaders, maxRetries: 0 });
  const answers = [];
  let messages = [];
  for (const content of ["count", "and now?"]) {
    messages = [...messages, { role: "user", content }];
    const asked = { model, messages, tools, stream: how === "stream" };
    const runner = client.chat.completions.runTools(asked, { maxChatCompletions: 200 });
    answers.push(await runner.finalContent());
    messages = runner.messages;
  }
  return answers;
}

for (const run of runs) console.log(JSON.stringify(await talk(...run.split(":"))));
