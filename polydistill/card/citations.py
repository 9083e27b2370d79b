"""BibTeX of the methods that a lineage used."""

from __future__ import annotations

from polydistill.card.facts import Facts, Step
from polydistill.card.text import at, mapping

_TRIMMING = """\
@inproceedings{abdaoui-etal-2020-load,
  title = {Load What You Need: Smaller Versions of Multilingual {BERT}},
  author = {Abdaoui, Amine and Pradel, Camille and Sigel, Gr{\\'e}goire},
  booktitle = {Proceedings of SustaiNLP: Workshop on Simple and Efficient Natural Language Processing},
  year = {2020},
  note = {arXiv:2010.05609}
}

@inproceedings{ushio-etal-2023-efficient,
  title = {Efficient Multilingual Language Model Compression through Vocabulary Trimming},
  author = {Ushio, Asahi and Zhou, Yi and Camacho-Collados, Jose},
  booktitle = {Findings of the Association for Computational Linguistics: EMNLP 2023},
  year = {2023},
  note = {arXiv:2305.15020}
}"""
_BISTIL = """\
@inproceedings{ansell-etal-2023-distilling,
  title = {Distilling Efficient Language-Specific Models for Cross-Lingual Transfer},
  author = {Ansell, Alan and Ponti, Edoardo Maria and Korhonen, Anna and Vuli{\\'c}, Ivan},
  booktitle = {Findings of the Association for Computational Linguistics: ACL 2023},
  year = {2023},
  note = {arXiv:2306.01709}
}"""
_SPARSE = """\
@inproceedings{ansell-etal-2022-composable,
  title = {Composable Sparse Fine-Tuning for Cross-Lingual Transfer},
  author = {Ansell, Alan and Ponti, Edoardo Maria and Korhonen, Anna and Vuli{\\'c}, Ivan},
  booktitle = {Proceedings of the 60th Annual Meeting of the Association for Computational Linguistics},
  year = {2022},
  note = {arXiv:2110.07560}
}"""
_TSL = """\
@inproceedings{wu-etal-2020-single,
  title = {Single-/Multi-Source Cross-Lingual {NER} via Teacher-Student Learning on Unlabeled Data in Target Language},
  author = {Wu, Qianhui and Lin, Zijia and Karlsson, B{\\"o}rje F. and Lou, Jian-Guang and Huang, Biqing},
  booktitle = {Proceedings of the 58th Annual Meeting of the Association for Computational Linguistics},
  year = {2020},
  note = {arXiv:2004.12440}
}"""
_PROKD = """\
@inproceedings{ge-etal-2023-prokd,
  title = {{ProKD}: An Unsupervised Prototypical Knowledge Distillation Network for Zero-Resource Cross-Lingual Named
    Entity Recognition},
  author = {Ge, Ling and Hu, Chunming and Ma, Guanghui and Zhang, Hong and Liu, Jihong},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  year = {2023},
  note = {arXiv:2301.08855}
}"""
_RELATIONS = """\
@inproceedings{wang-etal-2021-minilmv2,
  title = {{MiniLMv2}: Multi-Head Self-Attention Relation Distillation for Compressing Pretrained Transformers},
  author = {Wang, Wenhui and Bao, Hangbo and Huang, Shaohan and Dong, Li and Wei, Furu},
  booktitle = {Findings of the Association for Computational Linguistics: ACL-IJCNLP 2021},
  year = {2021},
  note = {arXiv:2012.15828}
}"""
_STACK = """\
@inproceedings{schmidt-etal-2024-self,
  title = {Self-Distillation for Model Stacking Unlocks Cross-Lingual {NLU} in 200+ Languages},
  author = {Schmidt, Fabian David and Borchert, Philipp and Vuli{\\'c}, Ivan and Glava{\\v{s}}, Goran},
  booktitle = {Findings of the Association for Computational Linguistics: EMNLP 2024},
  year = {2024},
  note = {arXiv:2406.12739}
}"""


def citations(facts: Facts) -> list[str]:
    """BibTeX entries, those of the newest step first."""
    return list(dict.fromkeys(entry for step in facts.lineage for entry in _of(step)))


def _of(step: Step) -> list[str]:
    if step.command == "trim":
        return [_TRIMMING]
    if step.command.startswith("sparse "):
        return [_SPARSE]
    if step.command == "stack":
        return [_STACK]
    if step.command == "bistil":
        objectives = [mapping(at(step.result, "settings", phase, "objectives")) for phase in ("phase_1", "phase_2")]
        relations = any("relations" in named for named in objectives)
        return [_BISTIL, *([_SPARSE] if step.result.get("task") else []), *([_RELATIONS] if relations else [])]
    if step.command == "prokd":
        method = step.result.get("method")
        return [*([_PROKD] if method == "prokd" else []), *([_TSL] if method != "transfer" else [])]
    return []
