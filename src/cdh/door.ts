import {
  GetResourceServiceDefinition,
  ImagePullServiceDefinition,
  SealedSecretServiceDefinition,
  SecureMountServiceDefinition,
} from "#proto/confidential_data_hub.ts";
import { KeyProviderServiceDefinition } from "#proto/keyprovider.ts";
import type { TtrpcServer } from "#ttrpc/server.ts";
import type { DataHub } from "./hub.ts";
import {
  decodeUnwrapInput,
  decodeWrapInput,
  encodeUnwrapOutput,
  encodeWrapOutput,
} from "./key-provider-protocol.ts";

/** Offers a hub to other processes, in the words of the confidential-containers project. */
export function offerHub(server: TtrpcServer, hub: DataHub): void {
  server.register(SealedSecretServiceDefinition, {
    unsealSecret: async ({ secret }, { signal }) => ({ plaintext: await hub.unsealSecret(secret, signal) }),
  });
  server.register(GetResourceServiceDefinition, {
    getResource: async ({ ResourcePath }, { signal }) => ({
      Resource: await hub.getResource(ResourcePath, signal),
    }),
  });
  server.register(SecureMountServiceDefinition, {
    async secureMount({ volumeType, options, flags, mountPoint }, { signal }) {
      await hub.secureMount({ volumeType, options, flags, mountPoint }, signal);
      return {};
    },
  });
  server.register(ImagePullServiceDefinition, {
    pullImage: async ({ imageUrl, bundlePath }, { signal }) =>
      await hub.pullImage({ imageUrl, bundlePath }, signal),
  });
  server.register(KeyProviderServiceDefinition, {
    async wrapKey({ KeyProviderKeyWrapProtocolInput: input }, { signal }) {
      const packet = await hub.wrapKey(decodeWrapInput(input), signal);
      return { KeyProviderKeyWrapProtocolOutput: encodeWrapOutput(packet) };
    },
    async unWrapKey({ KeyProviderKeyWrapProtocolInput: input }, { signal }) {
      const key = await hub.unwrapKey(decodeUnwrapInput(input), signal);
      return { KeyProviderKeyWrapProtocolOutput: encodeUnwrapOutput(key) };
    },
  });
}
