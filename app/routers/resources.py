"""The resources that endpoints depend on."""

from typing import Annotated

from fastapi import Depends

from app.caching import WriteBehind, WriteThrough
from app.inventory.models import Change, Stock
from app.page_views.store import PageViewStore
from app.products.service import Products
from app.speed.resource import Resource
from app.users.service import Users
from app.wiring import Resources

AllResources = Annotated[Resources, Depends(Resource(lambda resources: resources))]
CachedUsers = Annotated[Users, Depends(Resource(lambda resources: resources.users))]
CachedProducts = Annotated[Products, Depends(Resource(lambda resources: resources.products))]
CachedInventory = Annotated[WriteThrough[str, Change, Stock], Depends(Resource(lambda resources: resources.inventory))]
CachedPageViews = Annotated[WriteBehind, Depends(Resource(lambda resources: resources.page_views))]
StoredPageViews = Annotated[PageViewStore, Depends(Resource(lambda resources: resources.page_view_store))]
