"""The routes of the page and of the service, each file an APIRouter."""
