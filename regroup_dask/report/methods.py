"""A paragraph for the methods section of a paper, and the works it refers to: only what this run did."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from regroup_dask.grouping import by_list
from regroup_dask.science.clustering import LARGEST_FOR_BLOCKS

REFERENCES = {
    "crowther": "Crowther, R. A. (1972). The fast rotation function. In: The Molecular Replacement Method (ed. "
    "Rossmann, M. G.), 173–178. Gordon and Breach.",
    "holland": "Holland, P. W., Laskey, K. B. & Leinhardt, S. (1983). Stochastic blockmodels: first steps. Soc. Netw. 5, "
    "109–137.",
    "kass": "Kass, R. E. & Raftery, A. E. (1995). Bayes factors. J. Am. Stat. Assoc. 90, 773–795.",
    "kazhdan": "Kazhdan, M., Funkhouser, T. & Rusinkiewicz, S. (2003). Rotation invariant spherical harmonic representation "
    "of 3D shape descriptors. Symposium on Geometry Processing, 156–164.",
    "kovacs": "Kovacs, J. A. & Wriggers, W. (2002). Fast rotational matching. Acta Crystallogr. D 58, 1282–1286.",
    "luxburg": "von Luxburg, U. (2007). A tutorial on spectral clustering. Stat. Comput. 17, 395–416.",
    "ng": "Ng, A. Y., Jordan, M. I. & Weiss, Y. (2002). On spectral clustering: analysis and an algorithm. Adv. Neural "
    "Inf. Process. Syst. 14, 849–856.",
    "punjani": "Punjani, A., Rubinstein, J. L., Fleet, D. J. & Brubaker, M. A. (2017). cryoSPARC: algorithms for rapid "
    "unsupervised cryo-EM structure determination. Nat. Methods 14, 290–296.",
    "rosenthal": "Rosenthal, P. B. & Henderson, R. (2003). Optimal determination of particle orientation, absolute "
    "hand, and contrast loss in single-particle electron cryomicroscopy. J. Mol. Biol. 333, 721–745.",
    "scheres": "Scheres, S. H. W. (2012). RELION: implementation of a Bayesian approach to cryo-EM structure "
    "determination. J. Struct. Biol. 180, 519–530.",
    "searle": "Searle, S. R., Casella, G. & McCulloch, C. E. (1992). Variance Components. Wiley.",
    "singer": "Singer, A. & Shkolnisky, Y. (2011). Three-dimensional structure determination from common lines in "
    "cryo-EM by eigenvectors and semidefinite programming. SIAM J. Imaging Sci. 4, 543–572.",
    "ward": "Ward, J. H. (1963). Hierarchical grouping to optimize an objective function. J. Am. Stat. Assoc. 58, 236–244.",
    "zelnik": "Zelnik-Manor, L. & Perona, P. (2004). Self-tuning spectral clustering. Adv. Neural Inf. Process. Syst. "
    "17, 1601–1608.",
}


def methods_paragraph(
    record: dict[str, Any],
    pair_attributes: dict[str, Any],
    pair_variables: Collection[str] = (),
    *,
    every_pair: bool = True,
    n_corrected: int | None = None,
) -> tuple[str, list[str]]:
    """Describe what a run did.

    Parameters
    ----------
    record
        run.json.
    pair_attributes
        Attributes of pairs.zarr.
    pair_variables
        Names of what pairs.zarr holds.
    every_pair
        Whether all pairs were compared; if not, they were grouped as a graph.
    n_corrected
        How many pairs were aligned again because others contradicted them; None where it is not known.

    Returns
    -------
    str, list of str
        The paragraph, and the references it cites, in the order of the alphabet.
    """
    settings = record.get("settings", {})
    cited: set[str] = set()
    sentences = [
        _input_sentence(record, pair_attributes, cited),
        _map_sentence(settings, pair_attributes),
        *_comparison_sentences(settings, cited, n_corrected),
        *_grouping_sentences(record, settings, cited, pair_variables, every_pair),
        *_output_sentences(record, settings),
    ]
    text = " ".join(sentence for sentence in sentences if sentence)
    return text, [REFERENCES[name] for name in sorted(cited)]


def _input_sentence(record: dict[str, Any], pair_attributes: dict[str, Any], cited: set[str]) -> str:
    n_classes, n_particles = record.get("n_classes"), record.get("n_particles")
    version = (record.get("versions") or {}).get("regroup-dask")
    program = "regroup_dask" if version in (None, "unknown") else f"regroup_dask {version}"
    origin = ""
    kind = _kind_of_job(record)
    if kind == "cryosparc":
        origin = " of a CryoSPARC job (Punjani et al., 2017)"
        cited.add("punjani")
    elif kind == "relion":
        origin = " of a RELION job (Scheres, 2012)"
        cited.add("scheres")
    what = f"The {n_classes} class maps{origin}"
    box, voxel = pair_attributes.get("box"), pair_attributes.get("voxel_size_angstrom")
    if box and voxel:
        what += f" (box {box} voxels, {voxel:.3g} Å per voxel)"
    if n_particles is not None:
        what += f" and their {n_particles:,} particles"
    return f"{what} were regrouped with {program}."


def _kind_of_job(record: dict[str, Any]) -> str | None:
    words = " ".join([*map(str, record.get("found") or []), str(record.get("kind", ""))]).lower()
    return next((kind for kind in ("cryosparc", "relion") if kind in words), None)


def _map_sentence(settings: dict[str, Any], pair_attributes: dict[str, Any]) -> str:
    left_out = []
    if settings.get("minimum_class_size"):
        left_out.append(f"classes of fewer than {settings['minimum_class_size']:,} particles")
    if settings.get("exclude_classes"):
        left_out.append("classes " + ", ".join(map(str, settings["exclude_classes"])))
    parts = []
    if left_out:
        parts.append(f"{' and '.join(left_out).capitalize()} were left out.")
    masks = []
    if settings.get("mask"):
        masks.append("the given mask")
    if settings.get("mask_inner_radius"):
        masks.append(f"a soft spherical mask from {settings['mask_inner_radius']:g} of half the box")
    working, voxel = pair_attributes.get("working_box"), pair_attributes.get("working_voxel_size_angstrom")
    if working and voxel and working != pair_attributes.get("box"):
        parts.append(f"For comparison, maps were cropped in Fourier space to {working} voxels of {voxel:.3g} Å.")
    if masks:
        parts.append(f"Maps were multiplied with {' and '.join(masks)}.")
    return " ".join(parts)


def _comparison_sentences(settings: dict[str, Any], cited: set[str], n_corrected: int | None) -> list[str]:
    sentences = []
    if settings.get("pairs", "all") != "all":
        cited.add("kazhdan")
        sentences.append(
            "Each map was compared with those nearest to it by rotation-invariant descriptors (Kazhdan et al., 2003)."
        )
    if settings.get("align"):
        cited.update(("crowther", "kovacs", "singer"))
        pairs = "Every pair of maps" if settings.get("pairs", "all") == "all" else "Every such pair"
        hand = ", in both hands," if settings.get("hand") == "detect" else ""
        sentences.append(
            f"{pairs} was aligned{hand} over all rotations, by correlation of their expansions in spherical "
            "harmonics on the rotation group (Crowther, 1972; Kovacs & Wriggers, 2002), and over shifts of up to "
            f"{settings.get('maximum_shift_angstrom', 0):g} Å; the best poses were refined in Fourier space. Relative "
            f"orientations were made consistent over all pairs (Singer & Shkolnisky, 2011){_corrected_words(n_corrected)}."
        )
    else:
        sentences.append("Maps were compared in the orientation they came in.")
    if settings.get("similarity", "structure") == "structure":
        cited.add("rosenthal")
        sentences.append(
            "The similarity of two maps is the correlation of the structures behind them, estimated from their Fourier "
            "shell correlation divided by the share of signal in each map and shell (Rosenthal & Henderson, 2003) and "
            "averaged over shells with the inverse of its variance."
        )
    else:
        sentences.append("The similarity of two maps is their correlation coefficient.")
    return sentences


def _corrected_words(n_corrected: int | None) -> str:
    if n_corrected is None:
        return ", and pairs that the others contradicted were aligned again"
    if n_corrected == 0:
        return "; no pair contradicted the others"
    pairs, were = ("pair", "was") if n_corrected == 1 else ("pairs", "were")
    return f", and {n_corrected} {pairs} that the others contradicted {were} aligned again"


def _grouping_sentences(
    record: dict[str, Any],
    settings: dict[str, Any],
    cited: set[str],
    pair_variables: Collection[str],
    every_pair: bool,
) -> list[str]:
    count = record.get("n_superclasses")
    superclasses = "one superclass" if count == 1 else f"{count} superclasses"
    by_hand = record.get("by_hand") or []
    after, superclasses = superclasses, "superclasses" if by_hand else superclasses
    n_kept = record.get("n_classes_kept") or 0
    by_place = False
    structural = settings.get("similarity", "structure") == "structure" and "distance" in pair_variables
    listed = by_list(n_kept, every_pair=every_pair, contrasts=structural and "contrast" in pair_variables)
    if listed and structural:
        cited.add("holland")
        what = "differences of the pairs that were compared"
        if "contrast" in pair_variables:
            what += " (shells weighted by the difference that is seen in each on average over its variance)"
        sentences = [
            f"Classes were grouped into {superclasses} by average linkage of the {what}, each weighted by the inverse of its "
            "variance; partitions by linkage and by a spectral cut, and finer ones united by their likelihood, were improved "
            "under a block model of the differences (Holland et al., 1983) with the tails of Student's t, and the likeliest was "
            "taken."
        ]
    elif listed:
        cited.add("zelnik")
        sentences = [
            f"Classes were grouped into {superclasses} by spectral clustering of the graph of the pairs that were compared, with "
            "self-tuned affinities (Zelnik-Manor & Perona, 2004)."
        ]
    elif not structural:
        cited.update(("luxburg", "ng"))
        sentences = [
            f"Classes were grouped into {superclasses} by spectral clustering of the similarities (Ng et al., 2002; von "
            "Luxburg, 2007)."
        ]
    else:
        evidence = (record.get("grouping") or {}).get("evidence_curve")
        # without evidence of any number the maps were not such as the model describes
        by_place = "place_product" in pair_variables and (evidence is None or any(v is not None and v == v for v in evidence))
        sentences = [_model_sentence(superclasses, n_kept, cited, pair_variables)]
        if by_place:
            cited.update(("searle", "ward"))
            sentences.append(
                "Maps were also compared place by place, in overlapping windows and bands of resolution, by a Gaussian model "
                "with random effects for what all maps share, what sets superclasses apart and what an error of a pose costs "
                "(Searle et al., 1992); in each window superclasses that are alike there are united, as by Ward (1963), and all "
                "unions averaged over. The partition of greatest evidence was taken, the likelihood of the whole maps counting a "
                "tenth."
            )
    if by_hand:
        edits = "; ".join(str(edit) for step in by_hand for edit in step.get("edits") or [])
        sentences.append(f"These were then changed by hand ({edits}), which left {after}.")
    if settings.get("n_superclasses") == "auto":
        if by_place:
            cited.add("kass")
            sentences.append(
                "Their number is the fewest against which no other has strong evidence in this model (20 to 1; Kass & Raftery, "
                "1995)."
            )
        elif listed and structural and "contrast" in pair_variables:
            sentences.append(
                "Their number is that of the partition that describes the differences in the fewest words (minimum description "
                "length)."
            )
        else:
            sentences.append(
                "Their number was chosen as that of the largest gap between distances within and between superclasses, weighted "
                "by the stability of the grouping when noise is added."
            )
    return sentences


def _model_sentence(superclasses: str, n_kept: int, cited: set[str], pair_variables: Collection[str]) -> str:
    """Say how noise-weighted distances, and where they are kept the shell correlations, gave the partition."""
    start = "average linkage of the differences of pairs, each weighted by the inverse of its variance"
    if n_kept <= LARGEST_FOR_BLOCKS:
        cited.add("holland")
        start += ", and a block model of them (Holland et al., 1983)"
    if "fsc" not in pair_variables or "signal_fraction" not in pair_variables:
        return f"Classes were grouped into {superclasses} by {start}."
    return (
        f"Classes were grouped into {superclasses}: from what {start} gave, the likeliest partition was searched under a "
        "Gaussian model of the Fourier shell correlations of all pairs, in which every map is one of the structures plus its "
        "own noise."
    )


def _output_sentences(record: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    frame = "the largest class of all" if settings.get("frame") == "common" else "the largest class of each superclass"
    moved = f", moved into the frame of {frame} by cubic spline interpolation," if settings.get("align") else ""
    sentences = []
    if settings.get("align") and any("olish" in str(stage) for stage in record.get("seconds") or {}):
        sentences.append("The pose of each class in its superclass was refined against the average of the other classes.")
    sentences += [f"The map of a superclass is the mean of its class maps{moved} in real space."]
    if record.get("n_particles") is not None:
        rule = (
            "the superclass with the largest summed class posterior"
            if settings.get("posteriors") == "sum"
            else "the superclass of the class with the highest posterior"
        )
        text = f"Each particle was assigned to {rule}"
        if settings.get("minimum_posterior") is not None:
            text += f", if that posterior was at least {settings['minimum_posterior']:g}"
        sentences.append(text + ".")
        follows = settings.get("align") if settings.get("update_poses") is None else settings.get("update_poses")
        if follows and settings.get("align"):
            sentences.append("Particle poses were moved into the frame of the superclass.")
    return sentences
