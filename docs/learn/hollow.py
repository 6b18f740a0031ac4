"""Write a model directory of the shape of Mistral-7B whose weights are a hole in a sparse file.

    python hollow.py DIRECTORY [BITS_A_WEIGHT] [LAYERS]

It takes no room on the disk and cannot be run. `docmill plan` reads only shapes, so it plans it like a real one.
"""

import json
import struct
import sys
from pathlib import Path

HIDDEN, INTERMEDIATE, VOCABULARY, KEYS = 4096, 14336, 32768, 1024


def main(directory: Path, bits: float, layers: int) -> None:
    """Write config.json and the header of output.safetensors."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": layers,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 32768,
        "quantization_config": {"quant_method": "exl2", "bits": bits},
    }
    (directory / "config.json").write_text(json.dumps(config), "utf-8")
    matrices = {"lm_head": HIDDEN * VOCABULARY}
    for layer in range(layers):
        for name, columns in {"q": HIDDEN, "k": KEYS, "v": KEYS, "o": HIDDEN}.items():
            matrices[f"model.layers.{layer}.self_attn.{name}_proj"] = HIDDEN * columns
        for name in ("gate", "up", "down"):
            matrices[f"model.layers.{layer}.mlp.{name}_proj"] = HIDDEN * INTERMEDIATE
    header, end = {}, HIDDEN * VOCABULARY * 2
    header["model.embed_tokens.weight"] = {"dtype": "F16", "shape": [VOCABULARY, HIDDEN], "data_offsets": [0, end]}
    for name, weights in matrices.items():
        words = int(weights * bits / 32)
        header[f"{name}.q_weight"] = {"dtype": "I32", "shape": [words], "data_offsets": [end, end + 4 * words]}
        end += 4 * words
    text = json.dumps(header).encode()
    with (directory / "output.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


if __name__ == "__main__":
    given = sys.argv[1:] + ["4.0", "32"][len(sys.argv[2:]) :]
    main(Path(given[0]), float(given[1]), int(given[2]))
