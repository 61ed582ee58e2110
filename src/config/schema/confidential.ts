import { flag, text, whole } from "#config/setting.ts";

const REFUSED = "confidential guests are refused, see confidential_guest";

/** Guests whose memory the host cannot read. */
export function confidentialKeys() {
  return {
    confidential_guest: flag(
      "The guest's memory is encrypted (TDX, SEV-SNP). No driver can start such a machine yet: with true a sandbox is refused rather than started without protection.",
      false,
    ),
    sev_snp_guest: flag("The same by SEV-SNP; refused in the same way.", false),
    snp_id_block: text("SEV-SNP id block.", "", { without: REFUSED }),
    snp_id_auth: text("SEV-SNP id authentication.", "", { without: REFUSED }),
    snp_guest_policy: whole("SEV-SNP policy bits.", 0x30000, {
      min: 0,
      max: Number.MAX_SAFE_INTEGER,
      without: REFUSED,
    }),
    tdx_quote_generation_service_socket_port: whole("vsock port of the host's TDX quote service.", 4050, {
      min: 0,
      max: 2 ** 32 - 1,
      without: REFUSED,
    }),
    initdata: text("Initialization data that is bound to the measurement of the guest.", "", {
      annotation: "cc_init_data",
      without: REFUSED,
    }),
  };
}
