import type { AgentMethods, AgentRuntime } from "./agent-service.ts";

/** File systems of the guest that containers use. */
export function volumeMethods({ sandbox }: AgentRuntime): AgentMethods {
  const { runDirectory, storages } = sandbox.workshop;
  return {
    async getVolumeStats({ volumeGuestPath }) {
      const { readVolumeStats } = await import("#agent/volume.ts");
      return readVolumeStats(volumeGuestPath);
    },
    async resizeVolume({ volumeGuestPath, size }) {
      const { resizeVolume } = await import("#agent/volume.ts");
      await resizeVolume(runDirectory, volumeGuestPath, size);
      return {};
    },
    async updateEphemeralMounts(request) {
      await storages.update(request.storages);
      return {};
    },
    async removeStaleVirtiofsShareMounts() {
      const { dropStaleShares } = await import("#agent/share-mounts.ts");
      await dropStaleShares(runDirectory);
      return {};
    },
  };
}
