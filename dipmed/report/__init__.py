"""A page that a person opens to judge a reconstruction: one HTML file, which fetches nothing."""

from dipmed.report.beside import Follower
from dipmed.report.compare import comparison_page
from dipmed.report.page import check_page, save_page
from dipmed.report.recon import identity_of, recon_page

__all__ = ["Follower", "check_page", "comparison_page", "identity_of", "recon_page", "save_page"]
