// The verifier as a service: `node server.js [host:port]`, 127.0.0.1:15061 unless told.
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import { ReflectionService } from "@grpc/reflection";
import { HealthImplementation, protoPath as health } from "grpc-health-check";
import { problemOf, refusal } from "./requests.js";
import { description, score } from "./verifier.js";

const PROTO = process.env.BIOVERIFY_PROTO ?? fileURLToPath(new URL("../../proto", import.meta.url));
const contract = protoLoader.loadSync("bioverify/v1/verifier.proto", {
  includeDirs: [PROTO], keepCase: true, enums: String, longs: Number, defaults: true, oneofs: true,
});
const { VerifierService } = grpc.loadPackageDefinition(contract).bioverify.v1;

function scoreAll(batch) {
  const started = process.hrtime.bigint();
  const outcomes = batch.items.map((item) => ({ item_id: item.id, ...score(item, !batch.omit_evidence) }));
  const work_seconds = Number(process.hrtime.bigint() - started) / 1e9;
  return { outcomes, fingerprint: description.fingerprint, timing: { queue_seconds: 0, work_seconds } };
}

// Calls are scored one after the other on the one thread, so a call may have expired before its turn.
function isOver(call) {
  return call.cancelled || call.getDeadline() <= Date.now();
}

const server = new grpc.Server({
  "grpc.max_receive_message_length": description.limits.max_bytes,
  "grpc.max_send_message_length": -1,
});
server.addService(VerifierService.service, {
  Describe(call, answer) {
    answer(null, description);
  },
  ScoreBatch(call, answer) {
    if (isOver(call)) return answer(refusal(grpc.status.DEADLINE_EXCEEDED, "the deadline passed before the call's turn"));
    const problem = problemOf(call.request, description.limits.max_items);
    if (problem) return answer(problem);
    answer(null, scoreAll(call.request));
  },
  ScoreStream(call) {
    let isRefused = false;
    call.on("data", ({ batch }) => {
      if (isRefused) return;
      const problem = batch
        ? problemOf(batch, description.limits.max_items, "batch.")
        : refusal(grpc.status.INVALID_ARGUMENT, "batch: value is required", [["batch", "value is required"]]);
      isRefused = problem !== null;
      if (isRefused) {
        call.emit("error", problem);
      } else if (!call.write({ batch: scoreAll(batch) })) {
        // A caller that reads slowly is not read from.
        call.pause();
        call.once("drain", () => call.resume());
      }
    });
    call.on("end", () => isRefused || call.end());
  },
});
new HealthImplementation({ "": "SERVING", "bioverify.v1.VerifierService": "SERVING" }).addToServer(server);
new ReflectionService({ ...contract, ...protoLoader.loadSync(health) }).addToServer(server);

const target = process.argv[2] ?? "127.0.0.1:15061";
server.bindAsync(target, grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) {
    console.error(`cannot listen on ${target}: ${error.message}`);
    process.exit(1);
  }
  console.log(`${description.name} ${description.fingerprint} on port ${port}`);
});
for (const signal of ["SIGTERM", "SIGINT"]) process.once(signal, () => server.tryShutdown(() => process.exit(0)));
