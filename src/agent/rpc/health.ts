import { version } from "#base/version.ts";
import { HealthCheckResponse_ServingStatus, type HealthDefinition } from "#proto/health.ts";
import type { ServiceImplementation } from "#ttrpc/server.ts";

/** The version of the protocol that Kata's agent reports, and its clients look at. */
const PROTOCOL_VERSION = "0.0.1";

/** Service grpc.Health. */
export const healthService: ServiceImplementation<typeof HealthDefinition> = {
  check: () => ({ status: HealthCheckResponse_ServingStatus.SERVING }),
  version: () => ({ grpcVersion: PROTOCOL_VERSION, agentVersion: version }),
};
