"""ALBERT in BERT's form, with the weights that its layers share held once.

ALBERT (Lan et al. 2020) is a BERT of three differences: embeddings are narrower than the layers and mapped to their
width, the layers are few and passed several times, and the head goes back to the embeddings' width. All else of the
trainer knows BERT's parts by name (`bert.embeddings`, `bert.encoder.layer`, `cls.predictions`), and finds them here:
`encoder.layer` names each pass, the state has each weight once.
"""

import copy
import re

import torch
from torch import nn
from transformers import AlbertConfig, AlbertForMaskedLM, BertConfig, BertForMaskedLM
from transformers.models.bert.modeling_bert import BertEmbeddings, BertEncoder, BertLayer, BertOnlyMLMHead

_NAMES = (
    (r"^cls\.predictions\.(transform\.)?", "predictions."),
    (r"^bert\.embeddings\.mapping\.", "albert.encoder.embedding_hidden_mapping_in."),
    (r"^bert\.encoder\.groups\.(\d+)\.(\d+)\.", r"albert.encoder.albert_layer_groups.\1.albert_layers.\2."),
    (r"^bert\.", "albert."),
    (r"\.attention\.(self|output)\.", ".attention."),
    (r"\.intermediate\.dense\.", ".ffn."),
    (r"\.output\.dense\.", ".ffn_output."),
    (r"\.output\.LayerNorm\.", ".full_layer_layer_norm."),
)
"""Of a weight here, to that of transformers' ALBERT."""


class SharedBert(BertForMaskedLM):
    """Its configuration is BERT's with ALBERT's `embedding_size`, `num_hidden_groups` and `inner_group_num`."""

    def __init__(self, config: BertConfig):
        with torch.device("meta"):  # what BERT makes is put aside: wide embeddings, and layers for every pass
            super().__init__(config)
        narrow = copy.copy(config)
        narrow.hidden_size = config.embedding_size
        self.bert.embeddings = _MappedEmbeddings(narrow, config.hidden_size)
        self.bert.encoder = _SharedLayers(config)
        self.cls = BertOnlyMLMHead(narrow)
        self.cls.predictions.transform.dense = nn.Linear(config.hidden_size, config.embedding_size)
        self.tie_weights()

    def as_albert(self) -> tuple[dict, dict[str, torch.Tensor]]:
        """Configuration and weights as transformers' ALBERT has them."""
        return (
            AlbertConfig(**_of_no_kind(self.config)).to_dict() | {"architectures": ["AlbertForMaskedLM"]},
            {_albert_name(name): tensor for name, tensor in self.state_dict().items()},
        )


class _MappedEmbeddings(BertEmbeddings):
    def __init__(self, narrow: BertConfig, hidden: int):
        super().__init__(narrow)
        self.mapping = nn.Linear(narrow.hidden_size, hidden)

    def forward(self, *arguments, **named) -> torch.Tensor:
        return self.mapping(super().forward(*arguments, **named))


class _SharedLayers(BertEncoder):
    def __init__(self, config: BertConfig):
        nn.Module.__init__(self)  # BERT's makes a layer for every pass
        self.config = config
        self.groups = nn.ModuleList(
            nn.ModuleList(BertLayer(config) for _ in range(config.inner_group_num))
            for _ in range(config.num_hidden_groups)
        )
        for layer in self.layer:
            layer.output.dropout = nn.Identity()  # ALBERT drops nothing behind its feed-forward part

    @property
    def layer(self) -> list[BertLayer]:
        """The layers in the order of passes."""
        passes, groups = self.config.num_hidden_layers, len(self.groups)
        return [layer for i in range(passes) for layer in self.groups[i * groups // passes]]


def shared_bert_of(albert: AlbertForMaskedLM) -> SharedBert:
    """The model that says the same."""
    model = SharedBert(BertConfig(**_of_no_kind(albert.config)))
    state = albert.state_dict()
    model.load_state_dict({name: state[_albert_name(name)] for name in model.state_dict()})
    model.tie_weights()
    return model


def _albert_name(name: str) -> str:
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _of_no_kind(config: BertConfig | AlbertConfig) -> dict:
    return {
        k: v for k, v in config.to_dict().items() if k not in ("model_type", "architectures", "transformers_version")
    }
