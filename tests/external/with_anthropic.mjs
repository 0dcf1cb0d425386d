// Everything that Anthropic's own client for Node does with message batches, by ANTHROPIC_BASE_URL alone.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";

const ROWS = 3;
const client = new Anthropic({ maxRetries: 0 });

const request = (number) => {
  const messages = [{ role: "user", content: `Row ${number}.` }];
  return { custom_id: `r${number}`, params: { model: "claude-haiku-4-5", max_tokens: 32, messages } };
};
const requests = Array.from({ length: ROWS }, (_, number) => request(number));
const ended = async (batch) => {
  while (batch.processing_status !== "ended") {
    await new Promise((done) => setTimeout(done, 300));
    batch = await client.messages.batches.retrieve(batch.id);
  }
  return batch;
};
const all = async (pages) => {
  const found = [];
  for await (const one of pages) found.push(one);
  return found;
};

const made = await client.messages.batches.create({ requests });
assert.equal(made.type, "message_batch");
assert.equal(made.processing_status, "in_progress");
const done = await ended(made);
assert.deepEqual(
  [done.request_counts.succeeded, done.request_counts.errored, done.request_counts.processing],
  [ROWS, 0, 0],
);
const answers = await all(await client.messages.batches.results(done.id));
assert.deepEqual(answers.map((one) => one.custom_id).sort(), ["r0", "r1", "r2"]);
for (const one of answers) {
  assert.equal(one.result.type, "succeeded");
  assert.equal(one.result.message.type, "message");
  assert.ok(one.result.message.content[0].text);
  assert.ok(one.result.message.usage.output_tokens > 0);
}

const other = await client.messages.batches.create({ requests: [request(7)] });
assert.ok(["canceling", "ended"].includes((await client.messages.batches.cancel(other.id)).processing_status));
await ended(other);
const listed = (await all(client.messages.batches.list({ limit: 1 }))).map((one) => one.id);
assert.deepEqual(listed.slice(0, 2), [other.id, made.id]);
assert.equal(new Set(listed).size, listed.length);
assert.equal((await client.messages.batches.delete(other.id)).type, "message_batch_deleted");
await assert.rejects(client.messages.batches.retrieve(other.id), Anthropic.NotFoundError);

await assert.rejects(client.messages.batches.create({ requests: [] }), Anthropic.BadRequestError);
await assert.rejects(client.messages.batches.retrieve("msgbatch_none"), Anthropic.NotFoundError);
const stranger = new Anthropic({ apiKey: "not-a-key", maxRetries: 0 });
await assert.rejects(stranger.messages.batches.list(), Anthropic.AuthenticationError);

console.log(JSON.stringify({ rows: answers.length }));
