"""The order of the lessons: it stands in the file names of the notebooks, such as 08_the_elbo.ipynb, and nowhere else.

Code, exercises and saved progress know a lesson by its slug, "the_elbo", and an exercise as "the_elbo.1". Readers see
"08.1", from the name of the notebook. So a lesson can be put between two others by renaming notebooks.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2]
IN_CLONE = not (PACKAGE / "notebooks").is_dir()  # a wheel brings the notebooks inside the package
NOTEBOOKS = (PACKAGE.parent if IN_CLONE else PACKAGE) / "notebooks"

# Versions before slugs named exercises by these numbers: "08.1" in their notebooks and files is "the_elbo.1".
FORMER = (
    "start_here",
    "change_of_variables_1d",
    "change_of_variables_2d",
    "maximum_likelihood",
    "nice",
    "realnvp_in_the_plane",
    "what_a_flow_cannot_do",
    "gaussian_mixtures_and_em",
    "the_elbo",
    "the_variational_mixture_of_flows",
    "a_few_labels",
    "images_and_bits_per_dimension",
    "nice_on_mnist",
    "from_realnvp_to_glow",
    "multi_scale_flows_on_mnist",
    "autoregressive_flows",
    "the_mixture_of_flows_on_mnist",
)

MOVED = {"the_elbo.5": "the_vae.2"}  # exercises that went to another lesson, by the name that older notebooks have


def notebooks() -> dict[str, Path]:
    """The notebook of each number, "00" first, in teaching order; none where none are installed.

    Where somebody keeps copies beside a notebook, such as 04_nice-Copy1, the shortest name is the course's own.
    """
    there = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"), key=lambda path: (path.name[:2], -len(path.name), path.name))
    return {path.name[:2]: path for path in there}


def slug(notebook: Path) -> str:
    """The lesson of a notebook: "the_elbo" for 08_the_elbo.ipynb."""
    return notebook.stem[3:]


def numbers() -> dict[str, str]:
    """The number of each lesson, ``{"start_here": "00", ...}``, in teaching order."""
    return {slug(path): number for number, path in notebooks().items()}


def label(name: str) -> str:
    """What readers see: "08.1" for "the_elbo.1", "08" for "the_elbo"; the name itself where there is no notebook."""
    lesson, dot, rest = name.partition(".")
    return f"{numbers().get(lesson, lesson)}{dot}{rest}"


def renamed(name: str) -> str:
    """The name that an exercise or a lesson has now: "the_elbo.1" for "08.1", and "the_vae.2" for "the_elbo.5"."""
    number, dot, rest = name.partition(".")
    known = number.isdecimal() and int(number) < len(FORMER)
    slugged = f"{FORMER[int(number)]}{dot}{rest}" if known else name
    return MOVED.get(slugged, slugged)


def meant(name: str) -> str:
    """The name of what somebody calls by its name or by its number: "the_elbo.1" for both "the_elbo.1" and "08.1".

    A number may come from a notebook of today or from a copy made before lessons had other numbers. Raises ValueError
    where these two differ.
    """
    number, dot, rest = name.partition(".")
    if not number.isdecimal():
        return renamed(name)
    before = renamed(name)
    now = next((f"{lesson}{dot}{rest}" for lesson, at in numbers().items() if at == number.zfill(2)), before)
    if before not in (now, name):
        raise ValueError(
            f'{name} is "{now}" now, and was "{before}" in older notebooks. Type the name of what you mean.'
        )
    return now
