"""Reports without their rendering, which takes most of the time of a report, and of a small run that ends with one."""

from raylab.report.picture import Picture


def render_nothing(monkeypatch):
    """Every panel is filled, for an error in it shows then; but pages get empty figures, and folders empty files."""
    from matplotlib.figure import Figure

    def inline(picture):
        for panel in picture.panels:
            panel.fill(Figure().subplots())
        return [f'<svg id="{picture.name}-{at}-"></svg>' for at in range(len(picture.panels))]

    def save(picture, folder):
        folder.mkdir(parents=True, exist_ok=True)
        made = [folder / f"{picture.name}.{kind}" for kind in ("png", "svg")]
        for path in made:
            path.touch()
        return made

    monkeypatch.setattr(Picture, "inline", inline)
    monkeypatch.setattr(Picture, "save", save)
