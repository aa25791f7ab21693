# SPDX-License-Identifier: Apache-2.0
# Sourced: make_tiny_model TAILRACE FOLDER writes FOLDER/text.txt, FOLDER/tokenizer and
# FOLDER/model, a random model of two layers.
make_tiny_model() {
    local i
    for ((i = 0; i < 200; i++)); do
        echo "Line $i: water runs over the wheel, and the wheel turns the stone $((i * 7 % 31))."
    done > "$2/text.txt"
    "$1" tokenizer --data "$2/text.txt" --vocab 320 --out "$2/tokenizer" > /dev/null
    cat > "$2/arch.json" <<'END'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
 "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
 "num_key_value_heads": 1, "vocab_size": 320, "max_position_embeddings": 128,
 "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "tie_word_embeddings": true,
 "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.02, "torch_dtype": "float32"}
END
    "$1" init --arch "$2/arch.json" --tokenizer "$2/tokenizer" --out "$2/model" > /dev/null
}
