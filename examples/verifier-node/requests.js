// What makes a call valid, by the rules written beside the fields of the contract, and how one is refused: a status with
// google.rpc details that name the field.
import { Metadata, status } from "@grpc/grpc-js";
import protobuf from "protobufjs";

const rpc = protobuf.parse(`
  syntax = "proto3";
  package google.rpc;
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message BadRequest {
    message FieldViolation { string field = 1; string description = 2; }
    repeated FieldViolation field_violations = 1;
  }`, { keepCase: true }).root.lookup("google.rpc");

export function refusal(code, message, violations = []) {
  const details = [];
  if (violations.length) {
    const field_violations = violations.map(([field, description]) => ({ field, description }));
    const value = rpc.BadRequest.encode(rpc.BadRequest.create({ field_violations })).finish();
    details.push({ type_url: "type.googleapis.com/google.rpc.BadRequest", value });
  }
  const metadata = new Metadata();
  metadata.set("grpc-status-details-bin", Buffer.from(rpc.Status.encode({ code, message, details }).finish()));
  return { code, details: message, metadata };
}

// The refusal that the batch deserves; null where it is valid. `path`: where it is within the request.
export function problemOf(batch, maxItems, path = "") {
  if (batch.items.length > maxItems) {
    return refusal(status.RESOURCE_EXHAUSTED, `${batch.items.length} items in one call, at most ${maxItems} are taken`);
  }
  const violations = [];
  const check = (holds, field, problem) => holds || violations.push([path + field, problem]);
  // An enum's value that the contract does not know comes as a number.
  check(typeof batch.parse_mode === "string", "parse_mode", "is not one of the parse modes");
  const firstSeen = new Map();
  batch.items.forEach((item, index) => {
    const at = `items[${index}]`;
    check(within(item.id, 1, 256), `${at}.id`, "must have 1 to 256 characters");
    check(!firstSeen.has(item.id), `${at}.id`, `duplicate of items[${firstSeen.get(item.id)}].id`);
    firstSeen.set(item.id, index);
    check(within(item.group_id, 0, 256), `${at}.group_id`, "must have at most 256 characters");
    check(within(item.source, 0, 256), `${at}.source`, "must have at most 256 characters");
    check(typeof item.prompt_form === "string", `${at}.prompt_form`, "is not one of the prompt forms");
    item.prompt.forEach(({ role }, turn) =>
      check(["system", "user", "assistant"].includes(role), `${at}.prompt[${turn}].role`, "must be system, user or assistant"));
    if (item.answer) check(item.answer.reading, `${at}.answer.reading`, "exactly one field is required");
    if (item.task) checkTask(item.task, `${at}.task`, check);
  });
  if (!violations.length) return null;
  const shown = violations.slice(0, 5).map(([field, problem]) => `${field}: ${problem}`).join("; ");
  return refusal(status.INVALID_ARGUMENT, shown, violations.slice(0, 100));
}

function checkTask(task, at, check) {
  check(task.kind, `${at}.kind`, "exactly one field is required");
  for (const [field, value] of Object.entries(task[task.kind] ?? {})) {
    if (Array.isArray(value)) {
      check(value.length >= 1 && value.length <= 64, `${at}.${task.kind}.${field}`, "must have 1 to 64 items");
    }
    [value].flat().forEach((name, index) => {
      const place = Array.isArray(value) ? `${field}[${index}]` : field;
      check(within(name, 1, 64), `${at}.${task.kind}.${place}`, "must have 1 to 64 characters");
    });
  }
}

// Characters as the contract counts them: a gene made of emoji has one each.
function within(text, least, most) {
  return text.length >= least && (text.length <= most || [...text].length <= most);
}
