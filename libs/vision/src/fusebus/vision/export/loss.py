"""Owns the training loss, which transformers doesn't have for SAM 3: matching, scores, boxes, masks and presence."""

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from fusebus.vision.export.sam3 import Detections, Sam3Detector

_SCORE_WEIGHT, _L1_WEIGHT, _GIOU_WEIGHT = 4.0, 5.0, 2.0  # as in DETR's descendants, scores a little stronger
_PRESENCE_WEIGHT, _FOCAL_WEIGHT, _DICE_WEIGHT, _SEMANTIC_WEIGHT = 1.0, 20.0, 2.0, 1.0


@dataclass(frozen=True)
class Truth:
    """A batch's truth. boxes: (B, M, 4), x1 y1 x2 y2 as shares. masks: (B, M, 4g, 4g), 0 to 1. counts: per picture.
    kinds: (B, 4g, 4g) int64, what each cell shows, for a training that learns that, too.
    """

    boxes: Tensor
    masks: Tensor
    counts: list[int]
    kinds: Tensor | None = None


@dataclass(frozen=True)
class Matches:
    """Pairs of query and instance: for each, the picture, the query and the instance's number (int64, same length)."""

    picture: Tensor
    query: Tensor
    instance: Tensor


def match_by_grid(anchors: Tensor, truth: Truth) -> Matches:
    """Give every instance the free query whose anchor (Q, 2) is nearest to its centre, whatever the query predicts.

    A network that starts from nothing learns with this fixed rule; with Hungarian matching its targets jump about.
    """
    centres = (truth.boxes[..., :2] + truth.boxes[..., 2:]) / 2
    return _assign(torch.cdist(anchors.to(centres).expand(len(truth.counts), -1, -1), centres), truth.counts)


def match_by_cost(logits: Tensor, boxes: Tensor, truth: Truth) -> Matches:
    """Hungarian matching of one layer's (B, Q) logits and (B, Q, 4) boxes to the truth."""
    with torch.no_grad():
        overlap = _generalised_iou(boxes.unsqueeze(2), truth.boxes.unsqueeze(1))[1]
        cost = _L1_WEIGHT * torch.cdist(boxes, truth.boxes, p=1) - _GIOU_WEIGHT * overlap
        return _assign(cost - 2 * logits.sigmoid().unsqueeze(-1), truth.counts)


def detection_loss(
    detector: Sam3Detector, found: Detections, truth: Truth, anchors: Tensor | None
) -> tuple[Tensor, dict[str, float]]:
    """The whole loss and its parts by name; `anchors` asks for matching by grid instead of by cost."""
    total = found.logits.new_zeros(())
    parts: dict[str, float] = {}
    matches = None
    for layer in range(len(found.logits)):
        logits, boxes = found.logits[layer], found.boxes[layer]
        if anchors is None or matches is None:
            matches = (
                match_by_cost(logits.float(), boxes.float(), truth)
                if anchors is None
                else match_by_grid(anchors, truth)
            )
        score, distance, overlap = _layer_loss(logits, boxes, truth, matches)
        present = logits.new_tensor([float(count > 0) for count in truth.counts]).unsqueeze(1)
        presence = functional.binary_cross_entropy_with_logits(found.presence[layer], present)
        total = (
            total + _SCORE_WEIGHT * score + _L1_WEIGHT * distance + _GIOU_WEIGHT * overlap + _PRESENCE_WEIGHT * presence
        )
        parts = {"score": score.item(), "l1": distance.item(), "giou": overlap.item(), "presence": presence.item()}
    assert matches is not None
    mask, semantic = _mask_loss(detector, found, truth, matches), _semantic_loss(found.semantic, truth)
    parts |= {"mask": mask.item(), "semantic": semantic.item()}
    return total + mask + _SEMANTIC_WEIGHT * semantic, parts


def _assign(cost: Tensor, counts: list[int]) -> Matches:
    triples = []
    for picture, count in enumerate(counts):
        queries, instances = linear_sum_assignment(cost[picture, :, :count].cpu().numpy())
        triples += [(picture, query, instance) for query, instance in zip(queries, instances, strict=True)]
    columns = torch.tensor(triples, dtype=torch.int64, device=cost.device).reshape(-1, 3)
    return Matches(columns[:, 0], columns[:, 1], columns[:, 2])


def _layer_loss(logits: Tensor, boxes: Tensor, truth: Truth, matches: Matches) -> tuple[Tensor, Tensor, Tensor]:
    number = max(1, len(matches.picture))
    predicted = boxes[matches.picture, matches.query]
    wanted = truth.boxes[matches.picture, matches.instance]
    iou, giou = _generalised_iou(predicted, wanted)
    probability = logits.sigmoid().detach()
    target = torch.zeros_like(logits)
    matched = probability[matches.picture, matches.query]
    # Between certainty and overlap, so that a found instance's score says how well its box fits.
    target[matches.picture, matches.query] = (matched**0.25 * iou.detach().clamp(min=0.01) ** 0.75).clamp(0.01, 0.99)
    weight = torch.where(target > 0, torch.ones_like(target), probability**2)
    score = (functional.binary_cross_entropy_with_logits(logits, target, reduction="none") * weight).sum() / number
    return score, (predicted - wanted).abs().sum() / number, (1 - giou).sum() / number


def _generalised_iou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (Rezatofighi et al. 2019) of x1 y1 x2 y2 boxes, broadcast."""
    common = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    areas = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1)
    union = (areas - common).clamp(min=1e-6)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1).clamp(min=1e-6)
    iou = common / union
    return iou, iou - (hull - union) / hull


def _mask_loss(detector: Sam3Detector, found: Detections, truth: Truth, matches: Matches) -> Tensor:
    rows = len(found.pixels)  # masks may have been made for the first pictures only
    seen = matches.picture < rows
    picture, query, instance = matches.picture[seen], matches.query[seen], matches.instance[seen]
    number = max(1, len(picture))
    logits = detector.masks(found.queries[:rows], found.pixels)[picture, query].flatten(1)
    wanted = truth.masks[picture, instance].flatten(1)
    focal = _focal(logits, wanted).mean(1).sum() / number
    return _FOCAL_WEIGHT * focal + _DICE_WEIGHT * _dice(logits, wanted).sum() / number


def _semantic_loss(logits: Tensor, truth: Truth) -> Tensor:
    wanted = truth.masks[: len(logits)].amax(1).flatten(1)
    entropy = functional.binary_cross_entropy_with_logits(logits.flatten(1), wanted)
    return entropy + _dice(logits.flatten(1), wanted).mean()


def _focal(logits: Tensor, wanted: Tensor) -> Tensor:
    entropy = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return entropy * (logits.sigmoid() - wanted).abs() ** 2


def _dice(logits: Tensor, wanted: Tensor) -> Tensor:
    probability = logits.sigmoid()
    return 1 - (2 * (probability * wanted).sum(1) + 1) / (probability.sum(1) + wanted.sum(1) + 1)
